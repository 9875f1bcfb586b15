"""The layouts in which training scripts and hubs leave the weights of one model, through every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from tests.helpers.golden import golden_image
from vlmprof.backbones import checkpoints, create_backbone
from vlmprof.errors import UserError

State = dict[str, Tensor]

FAMILIES = [
    "vit-t",
    "vmamba-t",
    "mambavision-t",
    "clip-b",
    "dinov2-s",
    "siglip-b",
    "convnextv2-t",
    "swin-t",
]
WRAPPED = {
    "data parallel": lambda state: under("module.", state),
    "compiled": lambda state: under("_orig_mod.", state),
    "compiled, then data parallel": lambda state: under("module._orig_mod.", state),
    "a compiled part": lambda state: {name.replace(".", "._orig_mod.", 1): t for name, t in state.items()},
    "moving average": lambda state: {"model_ema": state, "epoch": 3},
    "timm's moving average": lambda state: {"arch": "vit", "state_dict_ema": under("module.", state)},
    "state_dict": lambda state: {"state_dict": under("module.", state), "optimizer": {"lr": 0.1}},
    "distilled": lambda state: {"teacher": state, "student": {name: 0 * t for name, t in state.items()}},
    "a teacher beside its head": lambda state: {
        "teacher": {**under("module.backbone.", state), "module.head.mlp.0.weight": torch.zeros(2, 2)}
    },
    "a teacher beside two heads": lambda state: {
        "teacher": {**under("backbone.", state), "dino_head.w": torch.zeros(2), "ibot_head.w": torch.zeros(2)}
    },
    "DeepSpeed": lambda state: {"module": state, "ds_version": "0.15"},
}


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return create_backbone("vit-t", seed=7)


@pytest.mark.parametrize("layout", WRAPPED)
def test_what_training_wraps_around_a_model_is_taken_off(
    layout: str, encoder: torch.nn.Module, tmp_path: Path
) -> None:
    torch.save(WRAPPED[layout](encoder.state_dict()), tmp_path / "weights.pth")
    again = create_backbone("vit-t", weights=str(tmp_path / "weights.pth"))
    assert torch.equal(again(golden_image(32, 48)), encoder(golden_image(32, 48)))


@pytest.mark.parametrize(
    "layout", ["data parallel", "compiled", "moving average", "distilled", "a teacher beside its head"]
)
def test_timms_models_take_them_too(layout: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    torch.save(WRAPPED[layout](model.state_dict()), tmp_path / "weights.pth")
    name = "timm:vit_tiny_patch16_224"
    again = create_backbone(name, image_size=(224, 224), weights=str(tmp_path / "weights.pth"))
    image = golden_image(224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(again(image), model.eval().forward_features(image)[:, 1:])


def sharded(state: State, folder: Path, safe: bool, shards: int = 3) -> Path:
    """Write `state` as transformers writes a model that is too large for one file; return its index."""
    stem, suffix = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    names = list(state)
    places = {name: f"{stem}-{i % shards + 1:05}-of-{shards:05}.{suffix}" for i, name in enumerate(names)}
    for shard in set(places.values()):
        part = {name: state[name].clone() for name in names if places[name] == shard}
        save_file(part, folder / shard) if safe else torch.save(part, folder / shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("named", ["index", "folder"])
def test_shards(safe: bool, named: str, encoder: torch.nn.Module, tmp_path: Path) -> None:
    index = sharded(encoder.state_dict(), tmp_path, safe)
    again = create_backbone("vit-t", weights=str(index if named == "index" else tmp_path))
    assert torch.equal(again(golden_image(32, 48)), encoder(golden_image(32, 48)))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as problem:
        checkpoints.read(path)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    state = {f"layer.{i}": torch.ones(2) for i in range(6)}
    index = sharded(state, tmp_path, safe=True)
    first = tmp_path / "model-00001-of-00003.safetensors"
    save_file({"layer.0": torch.ones(2)}, first)
    assert f"{first} lacks layer.3" in refused(index)
    first.unlink()
    assert f"there is no file {first}" in refused(index)
    index.write_text(json.dumps({"weight_map": {"layer.0": "../elsewhere.safetensors"}}))
    assert "no file beside it" in refused(index)
    index.write_text(json.dumps({"weight_map": {"layer.0": index.name}}))  # not without end
    assert "no file beside it" in refused(index)
    for content in ("[]", "{}", '{"weight_map": 3}', '{"weight_map": {"layer.0": 3}}', "not JSON"):
        index.write_text(content)
        assert "no index" in refused(index)


def test_a_folder_without_weights_names_what_is_looked_for(tmp_path: Path) -> None:
    assert "holds none of model.safetensors, " in refused(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads_its_own_state_from_shards_and_wrapped(name: str, tmp_path: Path) -> None:
    whole = create_backbone(name, levels="all", seed=7)
    state = {
        key.removeprefix("model."): t for key, t in whole.state_dict().items() if "num_batches" not in key
    }
    image = golden_image(64, 64)
    index = sharded(under("module.", state), tmp_path, safe=True)
    assert torch.equal(create_backbone(name, levels="all", weights=str(index))(image), whole(image))


TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "prefix"),
    [
        ("clip_vision_model", {**TINY, "patch_size": 16}, "vision_tower."),
        ("siglip_vision_model", {**TINY, "patch_size": 16}, "model.vision_tower."),
        ("dinov2", {**TINY, "patch_size": 16}, ""),
        ("vit", {**TINY, "patch_size": 16}, "vit."),
    ],
)
def test_a_tower_of_a_larger_model(
    kind: str, settings: dict[str, object], prefix: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(kind, **settings)
    torch.manual_seed(7)
    tower = AutoModel.from_config(config).eval()
    config.save_pretrained(tmp_path)
    state = under(prefix, tower.state_dict()) | {"language_model.embed_tokens.weight": torch.ones(3, 3)}
    torch.save(state, tmp_path / "vlm.bin")
    encoder = create_backbone(f"hf:{tmp_path}", weights=str(tmp_path / "vlm.bin"))
    own = {name.removeprefix("model."): t for name, t in encoder.state_dict().items()}
    assert all(torch.equal(tensor, tower.state_dict()[name]) for name, tensor in own.items())


def test_a_deeper_model_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("dinov2", **TINY, patch_size=16)
    config.save_pretrained(tmp_path)
    config.num_hidden_layers = 3
    torch.save(AutoModel.from_config(config).state_dict(), tmp_path / "deeper.bin")
    with pytest.raises(UserError, match="unexpected"):
        create_backbone(f"hf:{tmp_path}", weights=str(tmp_path / "deeper.bin"))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["vit", "clip_vision_model", "swin"])
def test_a_folder_of_transformers_holds_its_own_weights(tmp_path: Path, model_type: str) -> None:
    widths = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    of_swin = {"embed_dim": 8, "depths": [1, 1, 1], "num_heads": [2, 2, 2], "window_size": 4}
    config = AutoConfig.for_model(
        model_type, image_size=64, patch_size=4 if model_type == "swin" else 16,
        **(of_swin if model_type == "swin" else widths),
    )  # fmt: skip
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        tokens = create_backbone(f"hf:{tmp_path}", image_size=(64, 64), weights="pretrained")(images)
        own = model(images).last_hidden_state
    if model_type == "swin":
        # the map of a stage has a norm of its own, without weights in the folder
        own, tokens = (torch.nn.functional.layer_norm(one, (32,)) for one in (own, tokens))
    else:
        own = own[:, 1:]
    torch.testing.assert_close(tokens, own, rtol=1e-3, atol=1e-4)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights: none of .* can be loaded"):
        create_backbone(f"hf:{tmp_path}", weights="pretrained")
