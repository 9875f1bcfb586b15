"""Shared LLM measurements: which rows are shared, which columns are copied, and the sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.checks import known
from vlmprof.execution.sharing import SharedLLM, complete, omitted_llm_bytes, without_llm
from vlmprof.measure.samples import Samples
from vlmprof.plan import make_plan
from vlmprof.records import Row, StageFigures, Status
from vlmprof.spec import build_spec

AXES = {"backbone": ["vit-t", "vit-s", "vmamba-t"], "resolution": [224, 256], "llm": "llama-23m"}
CELLS = {cell.label: cell for cell in make_plan(build_spec({"axes": AXES}, {}, "test"))}
GIB = 2**30


def row_of(label: str, **changes: Any) -> Row:
    cell = CELLS[label]
    row = Row(
        cell_id=cell.cell_id,
        axes=cell.axes.named,
        height_px=cell.height_px,
        width_px=cell.width_px,
        status=Status.OK,
        visual_tokens=cell.visual_tokens,
        stages={
            "vision": StageFigures(host_s=0.01, gpu_s=0.1, weight_bytes=1 * GIB),
            "connector": StageFigures(host_s=0.001, gpu_s=0.05, weight_bytes=0),
            "prefill": StageFigures(host_s=0.02, gpu_s=1.0, weight_bytes=10 * GIB),
        },
        end_to_end_s=1.16,
        weight_bytes=11 * GIB,
        peak_allocated_bytes=15 * GIB,
    )
    return replace(row, **changes)


def test_only_the_same_shape_is_shared() -> None:
    llms = SharedLLM(True, [row_of("vit-t @ 224")])
    assert known(llms.source_row(CELLS["vmamba-t @ 224"])).cell_id == CELLS["vit-t @ 224"].cell_id
    assert llms.source_row(CELLS["vit-s @ 256"]) is None


def test_connectors_share_an_llm_if_they_give_as_many_visual_tokens() -> None:
    axes = {**AXES, "connector": ["pool2", "pixel-shuffle2", "resampler-64"]}
    pooled, shuffled, resampled = (
        cell
        for cell in make_plan(build_spec({"axes": axes}, {}, "test"))
        if (cell.axes.backbone, cell.axes.resolution) == ("vit-t", "224")
    )
    measured = row_of("vit-t @ 224", axes=pooled.axes.named, visual_tokens=pooled.visual_tokens)
    assert SharedLLM(True, [measured]).source_row(shuffled) == measured
    assert SharedLLM(True, [measured]).source_row(resampled) is None


@pytest.mark.parametrize("changes", [{"status": Status.OOM}, {"stages": {}}, {"llm_shared_from": "another"}])
def test_only_whole_rows_are_shared(changes: dict[str, Any]) -> None:
    assert SharedLLM(True, [row_of("vit-t @ 224", **changes)]).source_row(CELLS["vit-s @ 224"]) is None


def test_nothing_is_shared_unless_asked() -> None:
    assert SharedLLM(False, [row_of("vit-t @ 224")]).source_row(CELLS["vit-s @ 224"]) is None


def test_a_cell_that_takes_over_stops_at_the_connector() -> None:
    stages = ("vision", "connector", "prefill", "decode")
    whole = build_spec({"axes": AXES, "fixed": {"stages": list(stages), "seed": 1}}, {}, "test").settings
    assert without_llm(whole, None, GIB) == replace(whole, stages=("vision", "connector"))


def test_a_cell_that_takes_over_has_the_room_that_the_llm_would_leave() -> None:
    whole = build_spec({"axes": AXES}, {}, "test").settings
    assert without_llm(whole, 24 * GIB, 13 * GIB).memory_limit_bytes == 11 * GIB
    assert without_llm(whole, 8 * GIB, 13 * GIB).memory_limit_bytes == 1


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"outputs": "freed"}, 0),
        # 256 positions of 32,000 words less 256 embeddings of 384 channels, two bytes each
        ({}, 256 * (32_000 - 384) * 2),
        ({"prompt_tokens": 4}, 260 * 32_000 * 2 - 256 * 384 * 2),
        ({"logits": "last"}, 0),
        ({"stages": ("vision", "prefill")}, 256 * 32_000 * 2),
        ({"stages": ("vision", "prefill", "decode")}, 5 * GIB),
    ],
)
def test_what_an_llm_that_is_not_there_would_hold(changes: dict[str, Any], kept: int) -> None:
    settings = build_spec({"axes": AXES, "fixed": {"outputs": "kept"}}, {}, "test").settings
    cell = CELLS["vit-s @ 256"]
    source = row_of("vit-t @ 256", cache_bytes=5 * GIB)
    assert omitted_llm_bytes(cell, replace(settings, **changes), source) == 10 * GIB + kept


def test_running_out_of_memory_says_what_lay_beside() -> None:
    own = row_of("vit-s @ 224", status=Status.OOM, message="out of memory")
    row, _ = complete(own, Samples(), row_of("vit-t @ 224"), Samples(), 10 * GIB)
    assert row.status is Status.OOM
    assert row.message == "out of memory (with 10 GiB of the LLM resident)"
    assert row.llm_shared_from is None


def test_the_completed_row_is_the_sum_of_its_parts_and_says_whose() -> None:
    source = row_of(
        "vit-t @ 224",
        ttft_s=1.16,
        tpot_s=0.1,
        decode_tokens_per_s=10.0,
        energy_per_image_j=500.0,
        warnings=("gpu_prefill_s drifted by +3%", "gpu_vision_s drifted by +9%", "end_to_end_s jittered"),
        disturbances=("the GPU throttled",),
    )
    own_stages = {
        "vision": StageFigures(host_s=0.03, gpu_s=0.4, weight_bytes=3 * GIB),
        "connector": StageFigures(host_s=0.001, gpu_s=0.05, weight_bytes=0),
    }
    own = row_of(
        "vit-s @ 224",
        stages=own_stages,
        end_to_end_s=0.46,
        weight_bytes=3 * GIB,
        peak_allocated_bytes=4 * GIB,
        energy_per_image_j=90.0,
        warnings=("vision drifted",),
    )
    whole, samples = complete(
        own,
        Samples({"gpu_vision_s": [0.4], "end_to_end_s": [0.46]}),
        source,
        Samples(
            {
                "gpu_vision_s": [0.1, 0.1],
                "gpu_connector_s": [0.04, 0.06],
                "gpu_prefill_s": [1.0, 1.0],
                "end_to_end_s": [1.15, 1.17],
            }
        ),
        10 * GIB,
    )
    assert whole.llm_shared_from == source.cell_id
    assert whole.stages["prefill"] == source.stages["prefill"]
    assert whole.stages["vision"].gpu_s == 0.4
    assert whole.end_to_end_s == pytest.approx(0.46 + 1.16 - 0.1 - 0.05)
    assert whole.ttft_s == pytest.approx(whole.end_to_end_s)
    assert (whole.tpot_s, whole.decode_tokens_per_s) == (0.1, 10.0)
    assert whole.energy_per_image_j is None
    assert whole.weight_bytes == 13 * GIB
    # the LLM's 15 GiB with 2 GiB more of encoder beside it outweigh encoding under 10 GiB of LLM
    assert whole.peak_allocated_bytes == 17 * GIB
    assert samples == {
        "gpu_vision_s": [0.4],
        "gpu_prefill_s": [1.0, 1.0],
        "before_llm_s": [0.46],
        "from_llm_s": pytest.approx([1.01, 1.01]),
    }
    assert whole.end_to_end_s == pytest.approx(0.46 + 1.01)
    said = "gpu_prefill_s drifted by +3%", "the GPU throttled"
    assert whole.warnings == ("vision drifted", *(f"shared LLM: {words}" for words in said))
    assert whole.disturbances == ()


def test_encoding_can_be_the_peak() -> None:
    source = row_of("vit-t @ 224")
    own = row_of("vit-s @ 224", weight_bytes=1 * GIB, peak_allocated_bytes=9 * GIB)
    assert complete(own, Samples(), source, Samples(), 10 * GIB)[0].peak_allocated_bytes == 19 * GIB
    assert complete(own, Samples(), source, Samples(), 12 * GIB)[0].peak_allocated_bytes == 21 * GIB
