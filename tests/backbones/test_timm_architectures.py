"""Models of every architecture file of timm: right, or refused in one line by plan and show alike."""

import pytest
import torch
from typer.testing import CliRunner

from vlmprof.backbones import create_backbone, facts
from vlmprof.cli.app import app
from vlmprof.errors import UserError
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import build_spec

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm", reason="the optional extra `timm` is not installed")

PER_FILE = 3
"""Of each architecture's names, evenly spread over the alphabet."""
TOO_LARGE = (
    "giant",
    "gigantic",
    "huge",
    "_7b",
    "_1b",
    "so400m",
    "large",
    "xlarge",
    "xxlarge",
    "300m",
    "600m",
)
PARTS = 8


def spread() -> list[str]:
    names = []
    for file in timm.list_modules():
        small = [name for name in timm.list_models(module=file) if not any(w in name for w in TOO_LARGE)]
        names += small[:: max(1, len(small) // PER_FILE)][:PER_FILE]
    return names


NAMES = spread()


def plan_of(name: str, size: tuple[int, int]) -> list[Cell]:
    axes = {"backbone": [name], "resolution": [f"{size[1]}x{size[0]}"], "llm": ["llama-23m"]}
    return make_plan(build_spec({}, axes, "test"))


def problem_with(model_name: str) -> str | None:
    """None for a model that is right or refused as it should be, else what is wrong."""
    name = f"timm:{model_name}"
    try:
        known = facts(name)
    except UserError as refused:
        with pytest.raises(UserError) as planned:
            plan_of(name, (224, 224))
        shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "224"])
        alike = str(planned.value) == str(shown.exception) == str(refused)
        return None if alike and "\n" not in str(refused) else f"{name}: {refused}"
    size = known.padded(200, 200)
    (cell,) = plan_of(name, size)
    encoder = create_backbone(name, image_size=size, device="meta")
    with torch.inference_mode():
        shape = tuple(encoder(torch.empty(1, 3, *size, device="meta")).shape)
    promised = (1, cell.visual_tokens, known.embed_dim)
    return None if shape == promised else f"{name}: {shape} for {promised}"


def test_there_are_two_hundred() -> None:
    assert len(NAMES) >= 200


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
def test_right_or_refused_in_one_line(part: int) -> None:
    wrong = []
    for name in NAMES[part::PARTS]:
        try:
            problem = problem_with(name)
        except Exception as raised:
            problem = f"{name}: {type(raised).__name__}: {raised}"
        wrong += [problem] if problem else []
    assert wrong == []


@pytest.mark.parametrize(
    "model_name", ["resnet18", "swin_tiny_patch4_window7_224", "hiera_tiny_224", "samvit_base_patch16"]
)
def test_a_run_with_data_gives_what_is_promised(model_name: str) -> None:
    known = facts(f"timm:{model_name}")
    size = known.padded(64, 64)
    tokens = create_backbone(known.name, image_size=size)(torch.ones(1, 3, *size))
    assert tokens.shape == (1, known.num_tokens(*size), known.embed_dim)


@pytest.mark.parametrize("model_name", ["pit_ti_224", "inception_v3"])
def test_what_has_no_grid_is_refused(model_name: str) -> None:
    with pytest.raises(UserError, match="image of"):
        facts(f"timm:{model_name}")
