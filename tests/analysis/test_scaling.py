"""Fits and crossovers of synthetic runs with known answers, and the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame, sweep
from vlmprof.analysis.charts import fitted_panels
from vlmprof.analysis.crossover import all_crossovers
from vlmprof.analysis.frames import Line, split_lines
from vlmprof.analysis.intervals import Interval
from vlmprof.analysis.reference import load_reference
from vlmprof.analysis.scaling import fit_line, fit_tokens
from vlmprof.records import Row, StageFigures, Status
from vlmprof.render.tables.comparisons import column_words
from vlmprof.render.tables.scaling import crossovers_sheet
from vlmprof.render.tables.sheet import Value

Values = dict[str, dict[str, list[float]]]
"""Raw values by cell and column."""

TOKENS = np.array([196, 256, 576, 1024, 2304, 4096, 9216, 16384], dtype=float)
TRUTH = np.array([2e-3, 3e-6, 4e-10])


def truth(tokens: np.ndarray | float) -> np.ndarray:
    return TRUTH[0] + TRUTH[1] * tokens + TRUTH[2] * tokens**2


def test_exact_points_give_exact_parts() -> None:
    fit = known(fit_tokens(TOKENS, truth(TOKENS)))
    assert [fit.fixed.value, fit.linear.value, known(fit.quadratic).value] == pytest.approx(
        list(TRUTH), rel=1e-8
    )
    assert fit.relative_rms < 1e-9
    assert fit.marginal(1000).value == pytest.approx(TRUTH[1] + 2000 * TRUTH[2], rel=1e-8)
    assert fit.at(3000).value == pytest.approx(truth(3000), rel=1e-8)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    slope = TRUTH[1] + 2 * TRUTH[2] * 4096
    hits = np.zeros(4)
    trials = 600
    for _ in range(trials):
        fit = known(fit_tokens(TOKENS, truth(TOKENS) * (1 + 0.03 * random.normal(size=TOKENS.size))))
        parts: list[tuple[Interval, float]] = [
            (fit.fixed, TRUTH[0]), (fit.linear, TRUTH[1]), (known(fit.quadratic), TRUTH[2]),
            (fit.marginal(4096), slope),
        ]  # fmt: skip
        hits += [value in interval for interval, value in parts]
    assert hits / trials == pytest.approx([0.95] * 4, abs=0.03)


def test_too_few_points_fit_less_or_nothing() -> None:
    assert fit_tokens(TOKENS[:2], truth(TOKENS[:2])) is None
    assert fit_tokens([196] * 5, [1.0, 1.1, 1.2, 1.0, 0.9]) is None
    assert fit_tokens([], []) is None
    three = known(fit_tokens(TOKENS[:3], truth(TOKENS[:3])))
    assert three.quadratic is None
    assert three.linear.value == pytest.approx(TRUTH[1], rel=0.2)
    with_gap = known(fit_tokens([*TOKENS, 99999.0], [*truth(TOKENS), np.nan]))
    assert with_gap.linear.value == pytest.approx(TRUTH[1], rel=1e-6)


def test_a_line_of_a_run_is_fitted_by_its_own_tokens() -> None:
    (line,) = split_lines(frame(sweep(("vit-t",), oom_from={"vit-t": 1024})))
    fit = known(fit_line(line, "host_vision_s"))
    assert fit.fixed.value == pytest.approx(0.4e-3)
    assert fit.linear.value == pytest.approx(0.4 * 2e-6)
    assert fit_line(line, "gpu_decode_s") is None


def test_behind_a_connector_that_merges_each_stage_is_fitted_by_its_own_tokens() -> None:
    """Latencies of 1 ms and 1 µs per token: encoder tokens for vision, visual tokens for prefill."""
    rows = [
        cell("vit-t", side, visual_tokens=n // 16, encoder_tokens=n, stages={
            "vision": StageFigures(host_s=1e-3 + 1e-6 * n),
            "prefill": StageFigures(host_s=1e-3 + 1e-6 * n / 16),
        })
        for side, n in ((256, 256), (512, 1024), (768, 2304), (1024, 4096))
    ]  # fmt: skip
    panels = fitted_panels(split_lines(frame(rows)), ["host_vision_s", "host_prefill_s"])
    assert [panel.tokens for panel in panels] == ["encoder tokens", "visual tokens"]
    for panel, largest in zip(panels, (4096, 256), strict=True):
        (fitted,) = map(known, panel.lines)
        assert (fitted.fit.tokens_high, fitted.tokens[-1]) == (largest, largest)
        assert fitted.fit.fixed.value == pytest.approx(1e-3)
        assert fitted.fit.linear.value == pytest.approx(1e-6)


def test_the_papers_memory_has_vicunas_weights_as_its_fixed_part() -> None:
    line = next(x for x in split_lines(load_reference("kuo2026")) if x.backbone == "vit-t")
    gib = 2**30
    assert known(fit_line(line, "peak_allocated_bytes")).fixed.value / gib == pytest.approx(12.9, abs=0.3)


SIDES = (224, 320, 448, 640, 896, 1280, 1792)
FIRST, SECOND = np.array([4e-3, 1e-6]), np.array([1e-3, 4e-6])
CROSSING_TOKENS = (FIRST[0] - SECOND[0]) / (SECOND[1] - FIRST[1])


def two_lines(random: np.random.Generator | None = None, spread: float = 0.0) -> tuple[list[Line], Values]:
    rows: list[Row] = []
    samples: Values = {}
    for name, (fixed, slope) in (("vmamba-t", FIRST), ("vit-t", SECOND)):
        for side in SIDES:
            value = fixed + slope * (side / 16) ** 2
            if random is not None:
                drawn = value * (1 + spread * random.normal(size=12))
                value = float(drawn.mean())
                samples[f"{name}-{side}"] = {"end_to_end_s": list(drawn)}
            rows.append(cell(name, side, end_to_end_s=value))
    return split_lines(frame(rows)), samples


def test_a_crossover_is_found_where_it_is_and_names_who_is_cheaper() -> None:
    lines, _ = two_lines()
    (found,) = all_crossovers(lines, "end_to_end_s")
    assert found.size == pytest.approx(CROSSING_TOKENS * 256, rel=0.03)
    assert (found.cheaper_below.backbone, found.cheaper_above.backbone) == ("vit-t", "vmamba-t")
    assert found.low_size <= CROSSING_TOKENS * 256 <= found.high_size
    assert found.high_size / found.low_size < 2
    assert (found.open_below, found.open_above) == (False, False)


def test_an_interval_without_the_sampling_error_says_so() -> None:
    def notes(column: str, samples: Values) -> list[Value]:
        titles = {column: column_words(column)}
        sheet = crossovers_sheet(lines, titles, samples)
        return list(sheet.columns[-1].values)

    lines, samples = two_lines(np.random.default_rng(0), 0.001)
    few = {cell_id: {"end_to_end_s": own["end_to_end_s"][:2]} for cell_id, own in samples.items()}
    assert notes("end_to_end_s", samples) == [""]
    assert notes("end_to_end_s", few) == ["interval without sampling noise"]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.002, 0.05])
def test_crossover_intervals_cover_the_truth_at_least_as_often_as_they_say(spread: float) -> None:
    random = np.random.default_rng(11)
    trials, hits = 60, 0
    for _ in range(trials):
        (first, second), samples = two_lines(random, spread)
        for found in all_crossovers([first, second], "end_to_end_s", samples):
            if found.low_size <= CROSSING_TOKENS * 256 <= found.high_size:
                hits += 1
                break
    assert hits / trials >= 0.92


def test_lines_that_do_not_cross_have_no_crossover() -> None:
    lines = split_lines(frame(sweep(("vit-t", "vmamba-t"))))
    assert all_crossovers(lines, "end_to_end_s") == []
    assert all_crossovers(lines, "gpu_decode_s") == []
    assert all_crossovers(lines[:1], "end_to_end_s") == []


@pytest.mark.parametrize(
    ("first", "crossing"),
    [
        ([1, 2, 1], None),  # they only meet
        ([2, 2, 1], None),
        ([3, 2, 2], None),
        ([1, 2, 3], 448),
        ([1, 2, 2, 2, 3], 672),  # in the middle of the sizes where they are equal
    ],
)
def test_lines_that_meet_cross_only_if_the_order_changes(first: list[float], crossing: int | None) -> None:
    rows = [cell("vit-t", 224 * n, end_to_end_s=float(s)) for n, s in enumerate(first, start=1)]
    rows += [cell("vmamba-t", 224 * n, end_to_end_s=2.0) for n in range(1, len(first) + 1)]
    found = all_crossovers(split_lines(frame(rows)), "end_to_end_s")
    assert [one.size**0.5 for one in found] == (
        [] if crossing is None else [pytest.approx(crossing, rel=0.2)]
    )
    assert all(one.cheaper_below.backbone == "vit-t" for one in found)


def test_shapes_of_one_size_are_not_compared_with_each_other() -> None:
    rows = [cell("vit-t", side, end_to_end_s=s) for side, s in ((224, 1.0), (512, 1.0), ("1024x256", 9.0))]
    rows += [cell("vmamba-t", side, end_to_end_s=s) for side, s in ((224, 2.0), (512, 2.0))]
    rows += [cell("vmamba-t", "1024x256", status=Status.OOM)]
    assert all_crossovers(split_lines(frame(rows)), "end_to_end_s") == []


def test_two_sizes_alone_cannot_say_more_than_between_them() -> None:
    rows = [cell("vit-t", 224, end_to_end_s=1.0), cell("vit-t", 448, end_to_end_s=4.0)]
    rows += [cell("vmamba-t", 224, end_to_end_s=2.0), cell("vmamba-t", 448, end_to_end_s=2.0)]
    (found,) = all_crossovers(split_lines(frame(rows)), "end_to_end_s")
    assert (found.low_size, found.high_size) == pytest.approx((224**2, 448**2))
    assert found.open_below
    assert found.open_above


def test_only_lines_in_the_same_setting_are_compared() -> None:
    rows = sweep(("vit-t",), scale=3.0) + sweep(("vmamba-t",), axes={"dtype": "bfloat16"}, scale=0.1)
    assert all_crossovers(split_lines(frame(rows)), "end_to_end_s") == []
