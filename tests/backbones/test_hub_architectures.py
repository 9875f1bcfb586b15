"""Every vision architecture of transformers at its default widths and two layers: right, or refused alike."""

import inspect
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import model_type_to_module_name
from typer.testing import CliRunner

from vlmprof.backbones import create_backbone, facts
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.cli.backbones import app
from vlmprof.errors import UserError
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import build_spec

pytestmark = pytest.mark.slow

MAPPINGS = (modeling_auto.MODEL_MAPPING_NAMES, modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES)
RIGHT = {
    "aimv2_vision_model", "beit", "bit", "chinese_clip_vision_model", "clip_vision_model", "convnext",
    "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "dinov3_convnext",
    "dinov3_vit", "donut-swin", "dpt", "efficientnet", "focalnet", "glpn", "hgnet_v2", "hiera",
    "idefics3_vision", "ijepa", "internvl_vision", "levit", "maskformer-swin", "mlcd_vision_model",
    "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "pixtral", "poolformer", "pvt", "pvt_v2",
    "regnet", "resnet", "rf_detr_dinov2", "rt_detr_resnet", "sam2_hiera_det_model", "sam2_vision_model",
    "sam_hq_vision_model", "sam_vision_model", "segformer", "siglip2_vision_model",
    "siglip_vision_model", "smolvlm_vision", "swiftformer", "swin", "swin2sr", "swinv2", "textnet",
    "vit", "vit_mae", "vit_msn", "vitdet", "vitpose_backbone", "yolos",
}  # fmt: skip
"""Those that must not be refused, where transformers has them."""
REFUSALS = (
    "cannot be built",
    "cannot encode an image by itself",
    "has no grid of tokens",
    "needs more than an image",
    "is no image encoder",
)
OF_FULL_DEPTH = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
LARGEST_RUN_PX = 512 * 512
"""Larger images are encoded without data."""


def class_name(model_type: str) -> str:
    name = next(mapping[model_type] for mapping in MAPPINGS if model_type in mapping)
    return name if isinstance(name, str) else name[0]


def model_class(model_type: str) -> Any:
    return getattr(transformers, class_name(model_type), None)


def alone(parameters: Iterable[str]) -> bool:
    return "pixel_values" in parameters and {"input_ids", "decoder_input_ids"}.isdisjoint(parameters)


@cache
def source(module: str) -> str:
    folder = Path(transformers.__file__).parent / "models" / module
    return "".join(path.read_text() for path in folder.glob("modeling_*.py"))


def may_take_images_alone(model_type: str) -> bool:
    """Read from the source, because importing every model of transformers takes ten seconds.

    True also where the source of the class, or of its `forward`, is somewhere else.
    """
    code = source(model_type_to_module_name(model_type))
    body = re.search(rf"^class {class_name(model_type)}\(.*?(?=^\S|\Z)", code, re.M | re.S)
    signature = re.search(r"^    def forward\((.*?)\).*?:$", body[0], re.M | re.S) if body else None
    return signature is None or alone(re.findall(r"\w+", signature[1]))


def takes_images_alone(model_type: str) -> bool:
    try:
        parameters = inspect.signature(model_class(model_type).forward).parameters
    except (AttributeError, ImportError, TypeError):
        return False
    return alone(parameters)


ARCHITECTURES = [name for name in sorted({*MAPPINGS[0], *MAPPINGS[1]}) if may_take_images_alone(name)]


def small_config(model_type: str, folder: Path) -> str:
    config = CONFIG_MAPPING[model_type]()
    if isinstance(getattr(config, "depths", None), list | tuple):
        config.depths = [min(depth, 2) for depth in config.depths]
    elif isinstance(getattr(config, "num_hidden_layers", None), int):
        config.num_hidden_layers = min(config.num_hidden_layers, 2)
    config.save_pretrained(folder)
    file = folder / "config.json"
    # they would be those of the full depth
    kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in OF_FULL_DEPTH}
    file.write_text(json.dumps(kept))
    return f"hf:{folder}"


def plan_of(name: str, size: tuple[int, int]) -> list[Cell]:
    axes = {"backbone": [name], "resolution": [f"{size[1]}x{size[0]}"], "llm": ["llama-23m"]}
    return make_plan(build_spec({}, axes, "test"))


def sizes_of(known: BackboneFacts) -> list[tuple[int, int]]:
    """A size that the facts accept, not square where that is allowed."""
    smallest = known.padded(96, 96)
    if known.fixed_size is not None or known.square:
        return [smallest]
    return [known.padded(smallest[0], smallest[0] + max(known.multiple, known.stride))]


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(ARCHITECTURES) > 60
    assert {"swin", "resnet", "hiera", "yolos", "sam_vision_model"} <= {*ARCHITECTURES}


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_right_or_refused_in_one_line(model_type: str, tmp_path: Path) -> None:
    if not takes_images_alone(model_type):
        pytest.skip("takes more than an image, or is no model")
    try:
        name = small_config(model_type, tmp_path)
    except Exception as problem:
        pytest.skip(f"transformers cannot make or save its default configuration ({type(problem).__name__})")
    try:
        known = facts(name)
    except UserError as refused:
        said = str(refused)
        assert "\n" not in said
        assert any(reason in said for reason in REFUSALS), said
        assert model_type not in RIGHT, said
        with pytest.raises(UserError) as planned:
            plan_of(name, (224, 224))
        shown = CliRunner().invoke(app, ["show", name, "--resolution", "224"])
        assert str(planned.value) == str(shown.exception) == said
        return
    for size in sizes_of(known):
        (cell,) = plan_of(name, size)
        device = "cpu" if size[0] * size[1] <= LARGEST_RUN_PX else "meta"
        encoder = create_backbone(name, image_size=size, device=device)
        images = torch.ones(1, 3, *size, device=device)
        with torch.inference_mode():
            tokens = encoder(images)
        assert cell.visual_tokens == tokens.shape[1]
        assert tokens.shape == (1, known.num_tokens(*size), known.embed_dim)
