"""The summary of runs whose answers are known by hand, as data and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import split_lines
from vlmprof.analysis.summary import Summary, summarize
from vlmprof.records import Row, StageFigures, Status
from vlmprof.render.report.findings import findings
from vlmprof.render.tables.export import run_sheets

MIB = 2**20
NEAR = (0.99, 1.01, 1.0, 1.01, 0.99, 1.0, 0.99, 1.01, 1.0, 1.0)
"""Ten samples around 1, whose 95 % interval is well within 1 %."""
FAR = (0.5, 1.5, 1.0, 1.4, 0.6, 1.0, 0.7, 1.3, 1.1, 0.9)
"""Ten samples around 1, whose 95 % interval reaches beyond 10 %."""

Raw = dict[str, dict[str, list[float]]]


def measured(backbone: str, side: int, seconds: float, share: float = 0.5, **changed: object) -> Row:
    stages = {"vision": StageFigures(host_s=share * seconds, gpu_s=share * seconds)}
    options = {"stages": stages, "end_to_end_s": seconds, "peak_allocated_bytes": 100 * MIB} | changed
    return cell(backbone, side, **options)  # type: ignore[arg-type]


def raw(rows: Sequence[Row], around: Mapping[str, Sequence[float]] = {}) -> Raw:
    """Samples of the rows: `NEAR`, or those given by cell id."""
    return {
        row.cell_id: {
            "end_to_end_s": [known(row.end_to_end_s) * one for one in around.get(row.cell_id, NEAR)],
            "gpu_vision_s": [
                known(row.stages["vision"].gpu_s) * one for one in around.get(row.cell_id, NEAR)
            ],
        }
        for row in rows
        if row.status is Status.OK
    }


def summary(rows: Sequence[Row], samples: Raw) -> Summary:
    run = frame(rows)
    return summarize(Estimates(run, samples), split_lines(run))


def words(rows: Sequence[Row], samples: Raw) -> list[str]:
    return [finding.text for finding in findings(summary(rows, samples))]


CROSSING = [
    measured("vit-t", 224, 0.010, share=0.2),
    measured("vit-t", 448, 0.040, share=0.4),
    measured("vit-t", 896, 0.200, share=0.6),
    measured("vmamba-t", 224, 0.020, share=0.5),
    measured("vmamba-t", 448, 0.050, share=0.5),
    measured("vmamba-t", 896, 0.100, share=0.5, peak_allocated_bytes=50 * MIB),
]


def test_the_fastest_is_named_by_size_with_its_interval() -> None:
    (group,) = summary(CROSSING, raw(CROSSING)).latency
    assert [one.cheapest.line.backbone for one in group] == ["vit-t", "vit-t", "vmamba-t"]
    assert [known(one.next).line.backbone for one in group] == ["vmamba-t", "vmamba-t", "vit-t"]
    assert [one.cheapest.value.value for one in group] == pytest.approx([0.010, 0.040, 0.100])
    assert not any(one.tied for one in group)
    for one in group:
        low, high = one.cheapest.value.low, one.cheapest.value.high
        assert 0.99 * one.cheapest.value.value < low < one.cheapest.value.value < high
    said = words(CROSSING, raw(CROSSING))
    assert said[0].startswith("From 224² to 448², ViT-T is the fastest end to end with 10.0 (9.9")
    assert "; the next, VMamba-T, takes 50.0 (" in said[0]
    assert said[1].startswith("At 896², VMamba-T is the fastest end to end with 100 (")


def test_overlapping_intervals_show_no_difference() -> None:
    rows = [measured("vit-t", 224, 0.010), measured("vmamba-t", 224, 0.011), measured("vit-b", 224, 0.100)]
    samples = raw(rows, {rows[0].cell_id: FAR, rows[1].cell_id: FAR})
    ((ranking,),) = summary(rows, samples).latency
    assert [one.line.backbone for one in ranking.tied] == ["vmamba-t"]
    assert known(ranking.next).line.backbone == "vit-b"
    said = words(rows, samples)[0]
    assert said.startswith(
        "At 224², no difference in end-to-end latency is shown between ViT-T and VMamba-T;"
    )
    assert "fastest" not in said
    shares = next(text for text in words(rows, raw(rows)) if "share" in text)
    assert shares.startswith("At 224², no difference in the encoder's share of end-to-end latency is shown")


def test_unknown_intervals_show_no_difference_either() -> None:
    rows = [measured("vit-t", 224, 0.010), measured("vmamba-t", 224, 0.100)]
    ((ranking,),) = summary(rows, {}).latency
    assert not ranking.cheapest.value.is_known
    assert [one.line.backbone for one in ranking.tied] == ["vmamba-t"]
    said = words(rows, {})
    assert (
        "because intervals are unknown; at 224², they take 10.0 ms (interval unknown) and 100 ms" in said[0]
    )
    assert "2 of 2 measurements have no interval" in said[-1]


def test_crossings_shares_and_memory_are_found_where_they_are() -> None:
    found = summary(CROSSING, raw(CROSSING))
    (crossover,) = found.crossovers
    assert 448 < math.sqrt(crossover.size) < 896
    shares = {(one.line.backbone, one.resolution): one.value.value for one in found.shares}
    assert shares == pytest.approx({
        ("vit-t", "224²"): 0.2, ("vit-t", "896²"): 0.6, ("vmamba-t", "224²"): 0.5, ("vmamba-t", "896²"): 0.5,
    })  # fmt: skip
    said = words(CROSSING, raw(CROSSING))
    at = round(math.sqrt(crossover.size))
    assert any(text.startswith(f"Above {at}² (") and "VMamba-T is faster" in text for text in said)
    assert any(
        "At 224², the encoder's share of end-to-end latency ranges from 20.0 " in text for text in said
    )
    assert "From 224² to 448², ViT-T and VMamba-T need the least memory, equal within 2 %: " in " ".join(said)
    assert any(
        text.startswith("At 896², VMamba-T needs the least memory: a peak of 50.0 MiB") for text in said
    )
    assert "No encoder ran out of memory up to 896², the largest image measured." in said


def test_crossings_without_samples_or_an_end_are_only_counted() -> None:
    assert summary(CROSSING, {}).crossovers == []
    assert any(text.startswith("1 crossover is possible") for text in words(CROSSING, {}))
    two_sizes = [row for row in CROSSING if row.axes["resolution"] != "448"]
    found = summary(two_sizes, raw(two_sizes))
    assert (found.crossovers, found.undecided_crossovers) == ([], 1)


def test_of_an_order_that_changes_often_the_ends_are_told() -> None:
    rows = [
        measured(name, 224 + 32 * i, 0.01 * (i + 1) * (2 if (i % 2) == (name == "vit-t") else 1))
        for name in ("vit-t", "vmamba-t")
        for i in range(7)
    ]
    said = [text for text in words(rows, raw(rows)) if "fastest" in text or "order" in text]
    assert [text.split(" is the fastest")[0] for text in said] == [
        "At 224², ViT-T", "At 416², ViT-T",
        "Between these sizes, the order changes 6 times; the table has every size.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host_s", "flops", "moved", "busy_s", "bound", "share"),
    [
        (0.2, 8e11, 1e8, None, "arithmetic", 0.8),
        (0.2, 1e11, 7e8, None, "memory traffic", 0.7),
        (0.2, 1e11, 2e8, None, "neither", 0.2),
        (0.95, 8e11, 1e8, None, "launches", 0.95),
        (0.2, 8e11, 1e8, 0.3, "launches", 0.7),
    ],
)
def test_what_limits_an_encoder(
    host_s: float, flops: float, moved: float, busy_s: float | None, bound: str, share: float
) -> None:
    vision = StageFigures(
        host_s=host_s, gpu_s=1.0, gpu_busy_s=busy_s, counted_flops=int(flops), counted_bytes=int(moved)
    )
    row = cell(
        stages={"vision": vision}, end_to_end_s=2.0,
        matmul_ceiling_flops_per_s=1e12, copy_ceiling_bytes_per_s=1e9,
    )  # fmt: skip
    (limit,) = summary([row], {}).limits
    assert limit.bound == bound
    assert limit.share.value == pytest.approx(share)


def test_a_latency_that_may_be_anything_leaves_its_share_without_an_interval() -> None:
    row = measured("vit-t", 224, 0.1, matmul_ceiling_flops_per_s=1e12, copy_ceiling_bytes_per_s=1e9)
    stages = {"vision": StageFigures(host_s=0.001, gpu_s=0.05, counted_flops=10**9, counted_bytes=10**6)}
    row = replace(row, stages=stages)
    wild = raw([row], {row.cell_id: (0.01, 0.01, 2.98)})
    (limit,) = summary([row], wild).limits
    assert math.isnan(limit.share.high)
    said = words([row], wild)
    assert any("ViT-T" in one and "of a ceiling" in one for one in said)
    assert "nan" not in " ".join(said)


def test_where_memory_ends_and_what_is_doubtful() -> None:
    rows = [
        measured("vit-t", 224, 0.010, warnings=("bimodal",)),
        measured("vit-t", 448, 0.040, disturbances=("throttled",)),
        cell("vit-t", 896, status=Status.OOM),
        cell("vmamba-t", 224, status=Status.OOM, oom_stage="build"),
        cell("vmamba-t", 448, status=Status.ERROR),
        measured("vmamba-t", 896, 0.1),  # as with --run-after-oom
    ]
    found = summary(rows, raw(rows, {rows[0].cell_id: FAR}))
    first, second = found.memory_ends
    assert known(first.largest).resolution == "448²"
    assert second.largest is None
    doubts = found.doubts
    assert (doubts.measured, doubts.failed, doubts.warned, doubts.disturbed) == (3, 1, 1, 1)
    assert known(doubts.widest).resolution == "224²"
    said = words(rows, raw(rows, {rows[0].cell_id: FAR}))
    assert "ViT-T runs out of memory in vision at 896²; 448² ran with 100 MiB." in said
    assert "VMamba-T runs out of memory in build at 224²; no smaller size ran." in said
    assert said[-1].startswith(
        "Doubtful: 1 cell failed; 1 of 3 measurements was disturbed; "
        "1 of 3 measurements has warnings about samples or output."
    )


def test_runs_without_a_comparison_or_a_measurement() -> None:
    rows = [measured("vit-t", 224, 0.010), measured("vit-t", 448, 0.040)]
    said = words(rows, raw(rows))
    assert said[0].startswith("ViT-T takes 10.0 (")
    assert "No measurement failed, was disturbed or has a warning." in said[-1]
    nothing = [cell("vit-t", 224, status=Status.ERROR)]
    assert words(nothing, {}) == ["Doubtful: 1 cell failed."]
    assert words([cell("vit-t", 224, status=Status.SKIPPED)], {}) == ["No cell was measured."]


def test_a_latency_of_zero_divides_nothing() -> None:
    """As events around a stage without kernels may measure."""
    facts = {"counted_vision_flops": 1e9, "matmul_ceiling_flops_per_s": 1e12}
    rows = frame([measured("vit-t", 224, 0.01), measured("vit-t", 448, 0.0)]).assign(**facts)
    samples = {"vit-t-448": {"end_to_end_s": [0.0] * 3, "gpu_vision_s": [0.0] * 3}}
    found = summarize(Estimates(rows, samples), split_lines(rows))
    assert [one.resolution for one in found.shares] == ["224²"]
    assert (found.limits, found.doubts.widest) == ([], None)
    stage = next(sheet for sheet in run_sheets(rows, samples) if sheet.name == "stage-vision")
    by_title = {column.title: column.values for column in stage.columns}
    assert (by_title["host / GPU"][1], by_title["of end-to-end"][1]) == (None, None)


def test_only_lines_in_one_setting_are_compared() -> None:
    rows = [
        measured(name, 224, seconds, axes={"dtype": dtype})
        for dtype, scale in (("float32", 1.0), ("bfloat16", 0.1))
        for name, seconds in (("vit-t", 0.01 * scale), ("vmamba-t", 0.02 * scale))
    ]
    said = words(rows, raw(rows))
    assert [text for text in said if "fastest" in text and "float32" in text]
    assert not [text for text in said if "bfloat16" in text and "float32" in text and "fastest" in text]


@pytest.mark.parametrize(("bits", "exceeding"), [("as-dtype", 1), ("int8-dynamic", 0)])
def test_a_ceiling_that_was_measured_too_low_limits_nothing(bits: str, exceeding: int) -> None:
    fast = StageFigures(host_s=0.001, gpu_s=0.05, counted_flops=10**11, counted_bytes=10**6)
    llm = StageFigures(host_s=0.001, gpu_s=0.05, achieved_flops_per_s=1.5e12)
    row = cell(
        axes={"llm_precision": bits}, stages={"vision": fast, "prefill": llm}, end_to_end_s=0.2,
        matmul_ceiling_flops_per_s=1e12, copy_ceiling_bytes_per_s=1e9,
    )  # fmt: skip
    said = " ".join(words([row], {}))
    assert "it is unknown what limits ViT-T: the encoder reaches 200 % of the rate of a large" in said
    assert "arithmetic limits" not in said
    assert summary([row], {}).doubts.above_ceiling == exceeding


def test_a_share_is_the_ratio_of_means_and_its_interval_covers_that() -> None:
    random, truth, rows, samples = np.random.default_rng(0), 0.4, [], {}
    for trial in range(100):
        vision = 0.4 * random.lognormal(-0.005, 0.1, 40)
        whole = vision + 0.6 * random.lognormal(-0.08, 0.4, 40)
        seconds, share = float(whole.mean()), float(vision.mean() / whole.mean())
        rows.append(measured("vit-t", 224, seconds, share, axes={"dtype": str(trial)}))
        samples[rows[-1].cell_id] = {"gpu_vision_s": vision.tolist(), "end_to_end_s": whole.tolist()}
    shares = [one.value for one in summary(rows, samples).shares]
    of_table = [known(row.stages["vision"].gpu_s) / known(row.end_to_end_s) for row in rows]
    assert [share.value for share in shares] == pytest.approx(of_table)
    assert np.mean([truth in share for share in shares]) == pytest.approx(0.95, abs=0.045)


def test_no_share_reaches_beyond_the_whole() -> None:
    rows = [measured("vit-t", 224, 1.0)]
    samples = {rows[0].cell_id: {"gpu_vision_s": [0.3, 0.9, 0.3], "end_to_end_s": [1.0, 1.0, 1.0]}}
    (share,) = summary(rows, samples).shares
    assert share.value.value == pytest.approx(0.5)
    assert 0 <= share.value.low < 0.5 < share.value.high <= 1
