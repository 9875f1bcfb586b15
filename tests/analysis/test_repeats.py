"""Repeats: their rows as one, and intervals that cover the truth although repeats differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame
from vlmprof.analysis.compare import CellRatio, Verdict, compare, regressions
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import RunSamples
from vlmprof.analysis.repeats import pool
from vlmprof.records import Row, Status, repeat_id

CELLS = 250
TRUE_S = 0.1


def drawn(
    repeats: int, seed: int, between: float = 0.03, within: float = 0.01, scale: float = 1.0
) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    """Cells of one true latency, whose processes differ by `between` and whose iterations by `within`."""
    random = np.random.default_rng(seed)
    rows, samples = [], {}
    for i in range(CELLS):
        for repeat in range(1, repeats + 1):
            mean = TRUE_S * scale * (1 + between * random.normal())
            values = mean * (1 + within * random.normal(size=20))
            row = cell("vit-t", 16 * (i + 1), end_to_end_s=float(values.mean()))
            row = replace(row, cell_id=repeat_id(row.cell_id, repeat), repeat=repeat)
            rows.append(row)
            samples[row.cell_id] = {"end_to_end_s": values.tolist()}
    return rows, samples


def compared(a: int, b: int, scale: float = 1.0, between: float = 0.03) -> list[CellRatio]:
    """The end-to-end ratios of two runs with so many repeats, the second `scale` times as long."""
    runs = [drawn(a, 1, between), drawn(b, 2, between, scale=scale)]
    (x, raw_x), (y, raw_y) = (pool(frame(rows), samples) for rows, samples in runs)
    return [r for r in compare(x, y, raw_x, raw_y).ratios if r.column == "end_to_end_s"]


def coverage(ratios: list[CellRatio], truth: float) -> float:
    return float(np.mean([truth in known(ratio.ratio) for ratio in ratios]))


@pytest.mark.parametrize(
    ("a", "b"),
    [(3, 3), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(5, 5), (3, 6), (5, 1), (2, 1)])],
)
def test_ratios_of_repeats_cover_the_truth_as_often_as_they_say(a: int, b: int) -> None:
    ratios = compared(a, b, scale=1.1)
    assert {ratio.repeats for ratio in ratios} == {(a, b)}
    # 250 cells: two standard errors are 2.8 percentage points
    assert coverage(ratios, 1.1) == pytest.approx(0.95, abs=0.035)


def test_without_repeats_the_spread_between_processes_is_missed() -> None:
    assert coverage(compared(1, 1), 1.0) < 0.4


@pytest.mark.slow
def test_the_guard_of_repeats_does_not_cry_wolf_where_that_of_single_runs_does() -> None:
    def alarms(repeats: int) -> int:
        rows = [drawn(repeats, seed) for seed in (3, 4)]
        (a, raw_a), (b, raw_b) = (pool(frame(own), samples) for own, samples in rows)
        return len(regressions(compare(a, b, raw_a, raw_b), 0.01))

    assert alarms(1) > 50
    assert alarms(5) <= 2


def test_intervals_of_tables_and_figures_cover_the_spread_between_repeats() -> None:
    estimates = Estimates(*pool(frame(drawn(4, 5)[0]), drawn(4, 5)[1]))
    for statistic in ("mean", "median"):
        points = estimates.points("end_to_end_s", statistic)  # type: ignore[arg-type]
        inside = (points[:, 1] <= TRUE_S) & (points[:, 2] >= TRUE_S)
        assert inside.mean() == pytest.approx(0.95, abs=0.035)


def test_a_repeated_cell_is_one_row_with_its_means_and_largest_peaks() -> None:
    base = cell("vit-t", 224)
    rows = [
        replace(
            base, cell_id=repeat_id(base.cell_id, n), repeat=n, end_to_end_s=float(n), weight_bytes=7,
            peak_rss_bytes=100 * n, warnings=("careful", f"only {n}") if n < 3 else ("careful",),
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    raw: RunSamples = {row.cell_id: {"end_to_end_s": [float(row.repeat)] * 2} for row in rows}
    pooled, samples = pool(frame([*rows, cell("vit-s", 224)]), raw)
    assert pooled["cell_id"].tolist() == [base.cell_id, cell("vit-s", 224).cell_id]
    row = pooled.iloc[0]
    assert (row["end_to_end_s"], row["peak_rss_bytes"], row["weight_bytes"], row["repeats"]) == (
        2.0,
        300,
        7,
        3,
    )
    assert row["warnings"] == ["careful", "repeat 1: only 1", "repeat 2: only 2"]
    assert samples[base.cell_id]["end_to_end_s"] == [1, 1, 2, 2, 3, 3]


def test_a_repeat_that_failed_is_said_and_not_counted() -> None:
    rows = [cell("vit-t", 224), cell("vit-t", 224, status=Status.OOM, repeat=2, cell_id="vit-t-224-repeat2")]
    (row,) = pool(frame(rows), {})[0].to_dict("records")
    assert (row["status"], row["repeats"]) == ("ok", 1)
    assert row["warnings"] == ["repeat 2 ended in oom: out of memory"]
    silent = replace(rows[1], status=Status.ERROR, message=None, cell_id="vit-t-224-repeat3", repeat=3)
    (row,) = pool(frame([*rows, silent]), {})[0].to_dict("records")
    assert row["warnings"][1] == "repeat 3 ended in error: no message"


def test_what_some_repeats_lack_is_taken_from_the_others() -> None:
    base = cell("vit-t", 224)
    rows = [
        replace(base, cell_id=repeat_id(base.cell_id, n), repeat=n, energy_per_image_j=joules)
        for n, joules in ((1, None), (2, 4.0), (3, 2.0))
    ]
    raw = {row.cell_id: {"end_to_end_s": [float(row.repeat)] * 3} for row in rows}
    assert pool(frame(rows), raw)[0]["energy_per_image_j"].tolist() == [3.0]
    del raw[rows[1].cell_id]  # an unreadable file: the interval of two repeats is not that of all
    pooled = pool(frame(rows), raw)
    assert np.isnan(Estimates(*pooled).points("end_to_end_s", "mean")[0, 1:]).all()


def test_an_unrepeated_run_is_left_as_it_is() -> None:
    rows = frame([cell("vit-t", 224), cell("vit-t", 512)])
    assert pool(rows, {})[0] is rows


def test_few_iterations_are_enough_when_there_are_repeats() -> None:
    def run(scale: float) -> tuple[list[Row], RunSamples]:
        rows = [
            replace(
                cell("vit-t", 224), cell_id=repeat_id("c", n), repeat=n, end_to_end_s=scale * (1 + n / 1e3)
            )
            for n in (1, 2, 3)
        ]
        return rows, {row.cell_id: {"end_to_end_s": [known(row.end_to_end_s)]} for row in rows}

    (a, raw_a), (b, raw_b) = (pool(frame(rows), raw) for rows, raw in (run(1.0), run(1.2)))
    (ratio,) = [r for r in compare(a, b, raw_a, raw_b).ratios if r.column == "end_to_end_s"]
    assert (ratio.verdict, ratio.too_few) == (Verdict.SLOWER, {})
