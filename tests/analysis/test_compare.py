"""Comparing runs: verdicts, intervals, the guard and its false alarms, and lost cells."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.analysis.compare import CellRatio, Comparison, Verdict, compare, regressions
from vlmprof.analysis.reference import load_reference
from vlmprof.errors import UserError
from vlmprof.records import Status


def both(scale: float, spread: float = 0.01, seed: int = 0, iterations: int = 20) -> Comparison:
    """A sweep beside one whose cells all take `scale` times as long, with noisy means on both sides."""
    runs = []
    for factor, state in ((1.0, 2 * seed), (scale, 2 * seed + 1)):
        random = np.random.default_rng(state)
        rows, raw = [], {}
        for row in sweep(scale=factor):
            noisy = cell(
                str(row.axes["backbone"]), str(row.axes["resolution"]),
                scale=factor * (1 + spread * random.normal() / iterations**0.5),
            )  # fmt: skip
            rows.append(noisy)
        raw = samples(rows, iterations, spread, seed=state)
        runs.append((frame(rows), raw))
    (a, raw_a), (b, raw_b) = runs
    return compare(a, b, raw_a, raw_b)


def end_to_end(comparison: Comparison) -> list[CellRatio]:
    return [ratio for ratio in comparison.ratios if ratio.column == "end_to_end_s"]


@pytest.mark.parametrize(
    ("scale", "spread", "verdict"),
    [
        (0.8, 0.02, Verdict.FASTER),
        (1.25, 0.02, Verdict.SLOWER),
        (1.0, 0.005, Verdict.SAME),
        (1.01, 0.2, Verdict.UNCLEAR),
    ],
)
def test_verdicts(scale: float, spread: float, verdict: Verdict) -> None:
    verdicts = [ratio.verdict for ratio in end_to_end(both(scale, spread))]
    assert len(verdicts) == 18
    assert verdicts.count(verdict) >= 15


@pytest.mark.slow
def test_ratio_intervals_cover_the_truth_as_often_as_they_say() -> None:
    ratios = [ratio for seed in range(40) for ratio in end_to_end(both(1.1, 0.05, seed))]
    assert np.mean([1.1 in known(ratio.ratio) for ratio in ratios]) == pytest.approx(0.95, abs=0.025)


@pytest.mark.slow
def test_the_guard_sees_a_slowdown_and_rarely_cries_wolf() -> None:
    assert len(regressions(both(1.12, 0.02), 0.05)) == 18
    assert regressions(both(1.04, 0.02), 0.05) == []
    alarms = sum(bool(regressions(both(1.05, 0.05, seed), 0.05)) for seed in range(100))
    assert alarms <= 11


def test_a_cell_that_no_longer_runs_is_lost_and_a_skipped_one_is_not() -> None:
    before, after = sweep(("vit-t",)), sweep(("vit-t",), oom_from={"vit-t": 768})
    found = compare(frame(before), frame(after))
    assert [(lost.cell["resolution"], lost.oom_stage) for lost in found.lost] == [("768", "vision")]
    assert found.gained == []
    assert [gained["resolution"] for gained in compare(frame(after), frame(before)).gained] == ["768", "1024"]


def test_memory_is_a_plain_ratio() -> None:
    found = compare(
        frame([cell("vit-t", peak_allocated_bytes=100)]), frame([cell("vit-t", peak_allocated_bytes=150)])
    )
    (memory,) = [ratio for ratio in found.ratios if ratio.column == "peak_allocated_bytes"]
    assert (memory.value, memory.ratio, memory.verdict) == (1.5, None, None)


def test_without_samples_nothing_is_claimed() -> None:
    found = compare(frame(sweep()), frame(sweep(scale=2.0)))
    assert {ratio.verdict for ratio in end_to_end(found)} == {Verdict.UNCLEAR}
    assert [ratio.value for ratio in end_to_end(found)] == pytest.approx([2.0] * 18)
    assert regressions(found, 0.05) == []


def test_cells_are_matched_by_the_axes_that_both_runs_have() -> None:
    old = frame([cell("vit-t", 224), cell("vit-t", 512)])
    new = frame([cell("vit-t", 512, axes={"mode": "eager"}), cell("vit-s", 512, axes={"mode": "eager"})])
    found = compare(old, new)
    assert {ratio.cell["resolution"] for ratio in found.ratios} == {"512"}
    assert (found.only_a, found.only_b) == (1, 1)
    both_modes = frame([cell("vit-t", 512, axes={"mode": mode}) for mode in ("eager", "graph")])
    with pytest.raises(UserError, match="second run has cells that differ only in an axis"):
        compare(old, both_modes)
    with pytest.raises(UserError, match="have no cell in common"):
        compare(old, frame([cell("vit-b", 224)]))


def test_a_run_compares_with_the_paper() -> None:
    rows = [
        cell(
            "vit-b",
            1024,
            axes={"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "all"},
            end_to_end_s=0.17896,
        ),
        cell(
            "vit-b", 2048, axes={"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "all"}, status=Status.OOM
        ),
    ]
    found = compare(load_reference("kuo2026"), frame(rows), None, samples(rows))
    (ratio,) = end_to_end(found)
    assert ratio.value == pytest.approx(1.0)
    assert ratio.ratio is not None
    assert len(found.lost) == 1


def test_axes_that_mean_nothing_to_a_backbone_are_not_matched_on() -> None:
    a = frame(sweep(("vit-t", "vmamba-t"), (224,), axes={"levels": "all"}))
    b = frame(sweep(("vit-t", "vmamba-t"), (224,), axes={"levels": "through-tap"}))
    found = compare(a, b)
    assert {ratio.cell["backbone"] for ratio in found.ratios} == {"vit-t"}
    assert (found.only_a, found.only_b) == (1, 1)
    assert {r.cell["backbone"] for r in compare(a, b, ignore=["levels"]).ratios} == {"vit-t", "vmamba-t"}


def test_a_mismatch_names_what_keeps_the_cells_apart_and_what_ignores_it() -> None:
    a = frame(sweep(("vmamba-t",), (224,), axes={"levels": "all", "dtype": "bfloat16"}))
    b = frame(sweep(("vmamba-t",), (224,), axes={"levels": "through-tap", "dtype": "bfloat16"}))
    said = "levels is all in A and through-tap in B; --ignore levels compares them anyway"
    with pytest.raises(UserError, match=said) as refused:
        compare(a, b)
    assert "dtype" not in str(refused.value)
    with pytest.raises(UserError, match="unknown axis to ignore 'levls'; did you mean level"):
        compare(a, b, ignore=["levls"])


def test_rows_from_before_an_axis_existed_match_its_default() -> None:
    before = frame([cell("vit-t", 224), cell("vit-t", 224, axes={"frames": 4})])  # frames are NaN and 4.0
    after = frame([cell("vit-t", 224, axes={"frames": n}) for n in (1, 4)])
    matched = [ratio.cell["frames"] for ratio in end_to_end(compare(before, after, {}, {}))]
    assert matched == ["1", "4"]
