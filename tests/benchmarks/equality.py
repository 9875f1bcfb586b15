"""Compare every family with another implementation with the same weights, in float32, and print a table.

Run it by hand, with timm installed: `python tests/benchmarks/equality.py > reports/equality.md`. An error is
the largest deviation of any compared value, divided by the standard deviation of the other output. Golden
values (tests/golden) are outputs of the authors' code; timm and transformers run here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.helpers.encoders import after_down_sampling, feature_maps, logits, wrapped
from tests.helpers.golden import golden_image, golden_weight, load, load_golden_weights, relative_error
from tests.helpers.vit_weights import fresh, transformers_state
from vlmprof.backbones import create_backbone, facts
from vlmprof.backbones.vitdet import official_names

Size = tuple[int, int]
"""Height and width in pixels."""

LIMIT = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One model against one other implementation, at some sizes."""

    model: str
    against: str
    sizes: tuple[Size, ...]
    error: Callable[[Size], float]


def deviation(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours - theirs).abs().max() / theirs.std()).item()


def golden(file: str, name: str, outputs: Callable[..., list[Tensor]], key: str) -> Comparison:
    """Every level's output, and the logits where the record has them."""
    cases = {tuple(case["hw"]): case for case in load(file)[name]["cases"]}

    def error(size: Size) -> float:
        case = cases[size]
        whole = "vit-adapter" not in name
        module = create_backbone(name, levels="all", classifier=whole, kernels="torch")
        load_golden_weights(module)
        images = golden_image(*size)
        pairs = list(zip(outputs(module, images), case[key], strict=True))
        if "logits" in case:
            pairs.append((logits(module, images), case["logits"]))
        return max(relative_error(ours, theirs) for ours, theirs in pairs)

    return Comparison(name, "its authors' outputs", tuple(cases), error)


def vitdet_golden() -> Comparison:
    cases = {tuple(case["hw"]): case for case in load("vitdet_b.json")["vitdet-b"]["cases"]}

    def error(size: Size) -> float:
        module = create_backbone("vitdet-b")
        own = module.state_dict()
        official = official_names(list(own))
        module.load_state_dict({name: golden_weight(official[name], own[name]) for name in own})
        tokens = module(golden_image(*size))
        rows, columns = (side // 16 for side in size)
        return relative_error(tokens.transpose(1, 2).unflatten(2, (rows, columns)), cases[size]["output"])

    return Comparison("vitdet-b", "detectron2's outputs", tuple(cases), error)


def vit_timm(size: Size) -> float:
    import timm

    ours = fresh("vit-t")
    theirs = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = golden_image(*size)
    tokens = deviation(ours(images), theirs.forward_features(images)[:, 1:])
    return max(tokens, deviation(ours.logits(images), theirs(images)))


def vit_transformers(size: Size) -> float:
    ours = fresh("vit-s", image_size=size)
    config = transformers.ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=size, layer_norm_eps=1e-6
    )
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(transformers_state(ours, theirs), strict=True)
    images = golden_image(*size)
    return deviation(ours(images), theirs(images).last_hidden_state[:, 1:])


def maxvit_timm(size: Size) -> float:
    import timm

    ours = create_backbone("maxvit-t", image_size=size)
    theirs = timm.create_model("maxvit_tiny_tf_224", img_size=size).eval()
    renamed = {
        name.replace("stages_", "stages."): tensor
        for name, tensor in ours.get_submodule("model").state_dict().items()
    }
    theirs.load_state_dict(renamed, strict=False)
    x = theirs.stem(golden_image(*size))
    for stage in theirs.stages[:3]:
        x = stage(x)
    return deviation(ours(golden_image(*size)), x.flatten(2).transpose(1, 2))


def own_config(name: str) -> transformers.PreTrainedConfig:
    settings = dict(facts(name).config)
    return transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)


def plain(name: str, *sizes: Size) -> Comparison:
    def error(size: Size) -> float:
        ours = create_backbone(name, image_size=size)
        theirs = transformers.AutoModel.from_config(own_config(name)).eval()
        lacking = theirs.load_state_dict(wrapped(ours).state_dict(), strict=False)
        assert not lacking.unexpected_keys
        assert all(key.startswith("head.") for key in lacking.missing_keys)
        arguments = {"interpolate_pos_encoding": True} if name.startswith(("clip", "siglip")) else {}
        images = golden_image(*size)
        tokens = ours(images)
        return deviation(tokens, theirs(images, **arguments).last_hidden_state[:, -tokens.shape[1] :])

    return Comparison(name, "transformers", sizes, error)


def vitdet_transformers(size: Size) -> float:
    ours = create_backbone("vitdet-b", image_size=size)
    config = wrapped(ours).config
    assert isinstance(config, transformers.VitDetConfig)
    theirs = transformers.VitDetModel(config).eval()
    theirs.load_state_dict(wrapped(ours).state_dict(), strict=True)
    images = golden_image(*size)
    return deviation(ours(images), theirs(images).last_hidden_state.flatten(2).transpose(1, 2))


def siglip2(size: Size) -> float:
    """transformers' model, given what its own processor makes of the same pixels."""
    ours = create_backbone("siglip2-b")
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
    patches = size[0] * size[1] // 256
    processor = transformers.Siglip2ImageProcessorPil(max_num_patches=patches, patch_size=16)
    inputs = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")
    theirs = wrapped(ours)(**inputs).last_hidden_state
    return deviation(ours(pixels[None].float() / 127.5 - 1), theirs)


def hierarchical(name: str, *sizes: Size) -> Comparison:
    def error(size: Size) -> float:
        ours = create_backbone(name, levels="all", image_size=size)
        config = own_config(name)
        config.set_output_features_output_indices(out_features=["stage3"], out_indices=None)
        theirs = transformers.AutoBackbone.from_config(config).eval()
        theirs.load_state_dict(wrapped(ours).state_dict())
        images = golden_image(*size)
        (tapped,) = theirs(images).feature_maps
        return deviation(ours(images), tapped.flatten(2).transpose(1, 2))

    return Comparison(name, "transformers", sizes, error)


def comparisons() -> Iterator[Comparison]:
    by_sixteen = ((224, 224), (96, 160), (272, 256))
    yield Comparison("vit-t", "timm", by_sixteen, vit_timm)
    yield Comparison("vit-s", "transformers", by_sixteen, vit_transformers)
    for file in ("vmamba_t.json", "vmamba_t_v0.json", "vmamba_variants.json"):
        for name in load(file):
            yield golden(file, name, feature_maps, "stages_channel_first")
    yield vitdet_golden()
    yield Comparison("vitdet-b", "transformers", ((224, 224), (272, 448)), vitdet_transformers)
    yield golden("mambavision_t.json", "mambavision-t", after_down_sampling, "levels")
    for name in load("mambavision_odd.json"):
        yield golden("mambavision_odd.json", name, after_down_sampling, "levels")
    yield Comparison("maxvit-t", "timm", ((224, 224), (64, 96)), maxvit_timm)
    yield golden("vit_adapter.json", "vit-adapter-deit-b", feature_maps, "levels")
    yield plain("clip-b", (224, 224), (64, 96))
    yield plain("siglip-b", (224, 224), (96, 48))
    yield Comparison("siglip2-b", "transformers", ((224, 224), (48, 80)), siglip2)
    yield plain("dinov2-s", (224, 224), (56, 98))
    yield plain("dinov3-s", (224, 224), (48, 80))
    yield hierarchical("swin-t", (224, 224), (75, 109))
    yield hierarchical("convnextv2-t", (224, 224), (75, 109))


def versions() -> str:
    named = []
    for package in ("torch", "transformers", "timm"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"no {package}")
    return ", ".join(named)


def main() -> None:
    print("# Every family compared with another implementation\n")
    print(f"Made by `python tests/benchmarks/equality.py` with {versions()}, on a CPU in float32.\n")
    print((__doc__ or "").rsplit("An error is", 1)[-1].join(("An error is", "")).replace("\n", " ").strip())
    print(f"Every error must be below {LIMIT:g}.\n")
    print("| family | model | against | size (height × width) | largest relative error |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for one in comparisons():
        for size in one.sizes:
            try:
                error = one.error(size)
                worst, shown = max(worst, error), f"{error:.1e}" if error else "0, bit for bit"
            except ImportError as problem:
                shown = f"not run: {problem}"
            family = facts(one.model).family
            print(f"| {family} | {one.model} | {one.against} | {size[0]} × {size[1]} | {shown} |", flush=True)
    print(f"\nLargest error: {worst:.1e}.")
    print(
        "\nPlain families accept multiples of their patch size, and MaxViT and ViT-Adapter multiples of 32, "
        "so odd sizes are not compared. VMamba's first version was recorded at even sizes, because its "
        "authors' code pads odd sizes by half the image. CLIP, SigLIP, DINOv2, DINOv3, Swin and ConvNeXt V2 "
        "are built from transformers' classes; the comparison is between our backbone (with positions for "
        "the image size, its tap, and without unused parts) and plain use of the same classes."
    )
    if worst >= LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    with torch.inference_mode():
        main()
