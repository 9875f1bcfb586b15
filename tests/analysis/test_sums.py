"""End-to-end latency of cells that share an LLM: sums of two measurements, against scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.analysis.compare import compare
from vlmprof.analysis.estimates import column_intervals, column_medians
from vlmprof.analysis.intervals import mean_ends
from vlmprof.analysis.sums import cell_mean, cell_median


def parts(random: np.random.Generator, n: int = 12, m: int = 40) -> dict[str, list[float]]:
    """Before the LLM 2 s, skewed; from it 5 s. Both medians are known, and so are both means."""
    before = 2.0 * random.lognormal(0, 0.2, n)
    rest = 5.0 + 0.3 * random.standard_normal(m)
    return {"before_llm_s": before.tolist(), "from_llm_s": rest.tolist()}


def sum_ends(own: dict[str, list[float]]) -> tuple[float, float]:
    return mean_ends(known(cell_mean(own, "end_to_end_s")))


def test_sums_cover_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    mean, median = 2.0 * np.exp(0.02) + 5.0, 7.0
    draws = [parts(random) for _ in range(1500)]
    low, high = np.array([sum_ends(own) for own in draws]).T
    assert np.mean((low <= mean) & (mean <= high)) == pytest.approx(0.95, abs=0.02)
    medians = np.array([cell_median(own, "end_to_end_s") for own in draws])
    # samples whose neighbours are alike by chance have no interval, nor has their sum
    _, low, high = medians[np.isfinite(medians).all(axis=1)].T
    assert low.size > 1200
    # ranks of a dozen samples are few: the next narrower interval would cover too little
    assert 0.94 < np.mean((low <= median) & (median <= high)) < 1


def test_the_error_of_a_sum_is_welchs() -> None:
    own = parts(np.random.default_rng(4))
    mean = known(cell_mean(own, "end_to_end_s"))
    # Welch's test of a difference has the same standard error and degrees of freedom
    test = stats.ttest_ind(own["before_llm_s"], np.negative(own["from_llm_s"]), equal_var=False)
    assert mean.value == pytest.approx(np.mean(own["before_llm_s"]) + np.mean(own["from_llm_s"]))
    assert mean.value / mean.standard_error == pytest.approx(test.statistic)
    assert mean.degrees_of_freedom == pytest.approx(test.df)


def test_no_sum_of_latencies_may_be_negative() -> None:
    own = {"before_llm_s": [1.0, 1.0, 20.0], "from_llm_s": [1.0, 1.0, 30.0]}
    assert sum_ends(own)[0] < 0
    assert column_intervals(frame([cell()]), "end_to_end_s", {cell().cell_id: own})[0, 0] == 0


def test_columns_take_the_parts_where_there_is_no_whole() -> None:
    whole, shared = cell("vit-t", 224), cell("vit-s", 224)
    raw = samples([whole])
    raw[shared.cell_id] = parts(np.random.default_rng(5), 30, 30)
    rows = frame([whole, shared])
    ends, medians = (make(rows, "end_to_end_s", raw) for make in (column_intervals, column_medians))
    assert np.isfinite(ends).all()
    assert np.isfinite(medians).all()
    assert ends[1].tolist() == [*sum_ends(raw[shared.cell_id])]
    assert ends[0][0] < whole.end_to_end_s < ends[0][1]
    assert np.isnan(column_intervals(rows, "gpu_vision_s", raw)[1]).all()


def test_a_guard_sees_a_slower_encoder_under_a_shared_llm() -> None:
    rows = sweep(("vit-t",), (224,))
    random = np.random.default_rng(6)
    found = []
    for seconds in (2.0, 2.4):
        own = {
            "before_llm_s": (seconds + 0.01 * random.standard_normal(20)).tolist(),
            "from_llm_s": (1.0 + 0.01 * random.standard_normal(20)).tolist(),
        }
        changed = frame(rows).assign(end_to_end_s=seconds + 1.0)
        found.append((changed, {rows[0].cell_id: own}))
    (a, raw_a), (b, raw_b) = found
    (ratio,) = [r for r in compare(a, b, raw_a, raw_b).ratios if r.column == "end_to_end_s"]
    assert str(ratio.verdict) == "slower"
    interval = known(ratio.ratio)
    assert interval.low < 3.4 / 3.0 < interval.high
