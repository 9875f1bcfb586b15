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
from vlmprof.backbones.hub_config import VISION_PARTS
from vlmprof.cli.app import app
from vlmprof.errors import UserError
from vlmprof.execution.pipelines import build_pipeline
from vlmprof.measure.timeline import Stage
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import SweepSpec, build_spec

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
RIGHT_TOWERS = {
    "align", "altclip", "blip", "blip-2", "clipseg", "flava", "git", "got_ocr2", "idefics2", "instructblip",
    "janus", "kosmos-2", "metaclip_2", "ovis2", "owlv2", "owlvit", "phi4_multimodal",
    "cohere_compass", "dots3_note", "exaone4_5", "glm4v_moe", "glm_ocr", "kimi_k25", "qwen2_5_omni_thinker",
    "qwen2_vl", "qwen3_5", "qwen3_5_moe",
}  # fmt: skip
"""Models whose towers must not be refused."""
REFUSALS = (
    "cannot be built",
    "cannot encode an image by itself",
    "has no grid of tokens",
    "needs more than an image",
    "needs timm: pip install",
    "which is not installed",
    "no configuration that transformers can read",
    "is no image encoder",
)
OF_FULL_DEPTH = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
PARTS = 8
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
def source(model_type: str, files: str) -> str:
    folder = Path(transformers.__file__).parent / "models" / model_type_to_module_name(model_type)
    return "".join(path.read_text() for path in folder.glob(files))


def may_take_images_alone(model_type: str) -> bool:
    """Read from the source, because importing every model of transformers takes ten seconds.

    True also where the source of the class, or of its `forward`, is somewhere else.
    """
    code = source(model_type, "modeling_*.py")
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


@cache
def models_with_a_tower() -> list[str]:
    """One for each type of tower that is no architecture of its own, and one whose tower may be any.

    Not for collection: importing every configuration takes three seconds.
    """
    models: dict[str, str] = {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        # importing the others takes two seconds
        if not any(f'"{name}"' in source(model_type, "configuration_*.py") for name in VISION_PARTS):
            continue
        try:
            parts = CONFIG_MAPPING[model_type].sub_configs
        except (AttributeError, ImportError):
            continue
        tower = next((parts[name] for name in VISION_PARTS if name in parts), None)
        if tower is not None:
            models.setdefault(getattr(tower, "model_type", "any"), model_type)
    return [model for tower, model in models.items() if tower not in ARCHITECTURES]


def make_shallow(config: Any) -> None:
    if isinstance(getattr(config, "depths", None), list | tuple):
        config.depths = [min(depth, 2) for depth in config.depths]
    elif isinstance(getattr(config, "num_hidden_layers", None), int):
        if isinstance(getattr(config, "layer_types", None), list):
            config.layer_types = config.layer_types[:2]
        config.num_hidden_layers = min(config.num_hidden_layers, 2)
        # settings of single layers, which may be gone
        vars(config).pop("_heterogeneity_spec", None)


def small_config(model_type: str, folder: Path) -> str:
    config = CONFIG_MAPPING[model_type]()
    make_shallow(config)
    config.save_pretrained(folder)
    file = folder / "config.json"
    # they would be those of the full depth
    kept = {key: value for key, value in json.loads(file.read_text()).items() if key not in OF_FULL_DEPTH}
    file.write_text(json.dumps(kept))
    return f"hf:{folder}"


def small_model_with_a_tower(model_type: str, folder: Path) -> str:
    config = CONFIG_MAPPING[model_type]()
    for name in VISION_PARTS:
        if getattr(config, name, None) is not None:
            make_shallow(getattr(config, name))
    config.save_pretrained(folder)
    return f"hf:{folder}"


def spec_of(name: str, size: tuple[int, int]) -> SweepSpec:
    axes = {"backbone": [name], "resolution": [f"{size[1]}x{size[0]}"], "llm": ["llama-23m"]}
    return build_spec({"fixed": {"stages": ["vision"]}}, {**axes, "dtype": ["float32"]}, "test")


def plan_of(name: str, size: tuple[int, int]) -> list[Cell]:
    return make_plan(spec_of(name, size))


def output_of(cell: Cell, size: tuple[int, int]) -> torch.Tensor:
    """What the stage `vision` of the cell's own pipeline gives."""
    spec = spec_of(cell.axes.backbone, size)
    pipeline = build_pipeline(cell.axes, (cell.height_px, cell.width_px), spec.settings, torch.device("cpu"))
    (stage,) = pipeline.stages
    assert isinstance(stage, Stage)
    with torch.inference_mode():
        tokens = stage.run(pipeline.first_input)
    assert isinstance(tokens, torch.Tensor)
    return tokens


def output_without_data(name: str, size: tuple[int, int]) -> torch.Tensor:
    encoder = create_backbone(name, image_size=size, device="meta")
    with torch.inference_mode():
        tokens: torch.Tensor = encoder(torch.empty(1, 3, *size, device="meta"))
    return tokens


def sizes_of(known: BackboneFacts) -> list[tuple[int, int]]:
    """A size that the facts accept, not square where that is allowed."""
    smallest = known.padded(96, 96)
    if known.fixed_size is not None or known.square:
        return [smallest]
    return [known.padded(smallest[0], smallest[0] + max(known.multiple, known.stride))]


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(ARCHITECTURES) > 60
    assert len({*models_with_a_tower()} & RIGHT_TOWERS) > 12
    assert {"swin", "resnet", "hiera", "yolos", "sam_vision_model"} <= {*ARCHITECTURES}


def check_right_or_refused(name: str) -> str | None:
    """The reason of a refusal, which every command has to give alike; None for an encoder that is right."""
    try:
        known = facts(name)
    except UserError as refused:
        said = str(refused)
        assert "\n" not in said
        assert any(reason in said for reason in REFUSALS), said
        with pytest.raises(UserError) as planned:
            plan_of(name, (224, 224))
        with pytest.raises(UserError) as built:
            create_backbone(name)
        shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "224"])
        assert str(planned.value) == str(built.value) == str(shown.exception) == said
        return said
    for size in sizes_of(known):
        (cell,) = plan_of(name, size)
        small = size[0] * size[1] <= LARGEST_RUN_PX
        tokens = output_of(cell, size) if small else output_without_data(name, size)
        assert cell.visual_tokens == tokens.shape[1]
        assert tokens.shape == (1, known.num_tokens(*size), known.embed_dim)
    return None


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_right_or_refused_in_one_line(model_type: str, tmp_path: Path) -> None:
    if not takes_images_alone(model_type):
        pytest.skip("takes more than an image, or is no model")
    try:
        name = small_config(model_type, tmp_path)
    except Exception as problem:
        pytest.skip(f"transformers cannot make or save its default configuration ({type(problem).__name__})")
    refused = check_right_or_refused(name)
    assert refused is None or model_type not in RIGHT, refused


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
def test_the_towers_of_larger_models_are_right_or_refused_in_one_line(part: int, tmp_path: Path) -> None:
    wrong = {}
    for model_type in models_with_a_tower()[part::PARTS]:
        try:
            name = small_model_with_a_tower(model_type, tmp_path / model_type)
        except Exception as problem:
            # transformers cannot make or save its default configuration
            refused: str | None = repr(problem)
        else:
            refused = check_right_or_refused(name)
        if refused is not None and model_type in RIGHT_TOWERS:
            wrong[model_type] = refused
    assert wrong == {}
