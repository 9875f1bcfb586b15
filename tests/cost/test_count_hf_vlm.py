"""Whole VLMs counted without weights, against torch's own counter over a real pass."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from tests.helpers.photo_vlms import GLM4V, LLAVA, LLAVA_NEXT, PALIGEMMA, TEXT
from tests.helpers.small_vlms import llava
from tests.helpers.tiny_vlms import tiny_config
from vlmprof.cli import candidates
from vlmprof.cli.estimate import estimate
from vlmprof.cost import count_hf_vlm
from vlmprof.cost.costs import CellCost
from vlmprof.cost.count import count_cell
from vlmprof.errors import UserError
from vlmprof.execution.frontier import candidate_lines, counted_peaks
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import SweepSpec, build_spec
from vlmprof.vlm.hf_vlm import dry_run
from vlmprof.vlm.hf_vlm.model import create_hf_vlm
from vlmprof.vlm.hf_vlm.own import own_photo

# a square photo, one that is not, and one whose sides are odd
SIZES = ["112", "224x112", "301x199"]


def written(folder: Path, config: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return f"hf:{folder}"


def spec_of(name: str, **axes: Any) -> SweepSpec:
    return build_spec({}, {"vlm": [name], "resolution": SIZES, "dtype": "float32", **axes}, "test")


def counted(name: str, **axes: Any) -> list[tuple[Cell, CellCost]]:
    spec = spec_of(name, **axes)
    return [(cell, count_cell(cell, spec.settings)) for cell in make_plan(spec)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [LLAVA_NEXT, GLM4V, PALIGEMMA], ids=lambda config: str(config["model_type"])
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_flops_tokens_and_weights_are_those_of_a_real_pass(
    config: dict[str, Any], batch_size: int, tmp_path: Path
) -> None:
    name = written(tmp_path, config)
    vlm = create_hf_vlm(name, one_piece=False)
    for cell, cost in counted(name, batch_size=batch_size):
        size = (cell.height_px, cell.width_px)
        photo = own_photo(name, size, "float32", batch_size=batch_size)
        inputs = photo.inputs("cpu")
        parts = vlm.tell_parts(inputs)
        # torch's counter has no formula for the CPU's fused attention
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
            vlm.forward(inputs)
        assert sum(stage.matrix_flops for stage in cost.stages.values()) == torchs.get_total_flops()
        assert (cell.visual_tokens, cell.tiles) == (photo.facts.visual_tokens, photo.facts.tiles)
        assert cost.visual_tokens == photo.facts.visual_tokens
        assert cell.encoder_tokens == parts.encoder_tokens // batch_size
        weights = {stage: part.weight_bytes for stage, part in cost.stages.items() if part.weight_bytes}
        assert weights == vlm.weight_bytes()


@pytest.mark.slow
def test_weights_of_a_model_whose_prefill_cannot_be_told_apart_are_all_counted(tmp_path: Path) -> None:
    tiny_config("chameleon").save_pretrained(tmp_path)
    ((_, cost),) = counted(f"hf:{tmp_path}", resolution="64")
    assert "prefill" not in cost.stages
    model = create_hf_vlm(f"hf:{tmp_path}", one_piece=False, device="meta").model
    assert cost.weight_bytes == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


@pytest.mark.slow
def test_images_in_one_piece_are_counted_too(tmp_path: Path) -> None:
    llava().save_pretrained(tmp_path)
    (cell, cost), _ = counted(f"hf:{tmp_path}", resolution=["56", "112"], processor="one-piece")
    assert cell.visual_tokens == cost.visual_tokens == 16


def test_estimate_prints_tiles_tokens_and_stages(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(estimate)
    words = ["quick", "--vlm", written(tmp_path, LLAVA_NEXT), "--resolution", "112", "--gpu", "l4"]
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, words).output
    head, row = (next(line.split() for line in shown.splitlines() if at in line) for at in ("tiles", "112²"))
    # 8 × 8 patches of the photo in 112 × 224 and of its thumbnail, and a newline after each of 8 rows
    assert row[2:5] == ["3", "192", "136"]
    assert head[-7:] == ["vision", "connector", "prefill", "other", "end-to-end", "peak", "note"]
    assert "nothing was run" in shown


@pytest.mark.slow
def test_a_search_starts_from_counted_peaks(tmp_path: Path) -> None:
    wanted = {"vlm": [written(tmp_path, GLM4V)], "dtype": "float32"}
    searched = candidates.spec(None, wanted, "resolution", largest=448, step=112)
    (line,) = candidate_lines(searched, "resolution")
    assert [cell.axes.resolution for cell in line] == ["112", "224", "336", "448"]
    peaks = counted_peaks(line, searched.settings)
    assert peaks == sorted(peaks)
    # four times the pixels, and nothing else grows
    grown = [peak - peaks[0] for peak in peaks]
    assert 14 / 3 < grown[3] / grown[1] < 16 / 3


@pytest.mark.slow
def test_what_cannot_be_counted_gets_one_line(tmp_path: Path) -> None:
    text: Any = GLM4V["text_config"]
    name = written(tmp_path, {**GLM4V, "text_config": {**text, "hidden_size": 96}})
    with pytest.raises(UserError, match="does not accept 112x112") as problem:
        counted(name)
    assert "\n" not in str(problem.value)


def test_counts_are_forgotten_with_their_model(tmp_path: Path) -> None:
    """Another model may be built at the same address."""
    count_hf_vlm._COUNTED.clear()
    counted(written(tmp_path, LLAVA_NEXT), resolution=["112"])
    assert len(count_hf_vlm._COUNTED) == 1
    dry_run._dry_run.cache_clear()
    dry_run._model.cache_clear()
    gc.collect()
    assert len(count_hf_vlm._COUNTED) == 0


def test_the_least_traffic_of_decoding_leaves_out_idle_experts_once(tmp_path: Path) -> None:
    experts = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, **TEXT}
    name = written(tmp_path, {**LLAVA, "text_config": experts})
    stages = {"stages": ["vision", "connector", "prefill", "decode"], "resolution": ["112"]}
    one, eight = (counted(name, new_tokens=n, **stages)[0][1].stages["decode"] for n in (1, 8))
    assert eight.flops == 8 * one.flops
    assert 0 < one.least_bytes == eight.least_bytes < one.weight_bytes
