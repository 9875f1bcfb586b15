"""Intervals against scipy's and against simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from tests.helpers.checks import known
from vlmprof.analysis.intervals import mean_interval
from vlmprof.measure.statistics import effective_count


def coverage(draw: Callable[[], np.ndarray], mean: float, trials: int = 1500) -> float:
    hits = sum(mean in known(mean_interval(draw())) for _ in range(trials))
    return hits / trials


def correlated(random: np.random.Generator, n: int, rho: float) -> np.ndarray:
    values = np.zeros(n + 50)
    for i, shock in enumerate(random.normal(size=n + 49), start=1):
        values[i] = rho * values[i - 1] + shock
    return values[50:]


@pytest.mark.parametrize("n", [5, 20, 100])
def test_intervals_of_even_samples_cover_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    assert coverage(lambda: random.normal(3, 1, n), 3.0) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 100])
def test_intervals_of_skewed_samples_cover_more_often_than_the_plain_t_interval(n: int) -> None:
    random = np.random.default_rng(n)
    draws = [random.lognormal(0, 1, n) for _ in range(1500)]
    truth = np.exp(0.5)
    ours = np.mean([truth in known(mean_interval(draw)) for draw in draws])
    plain = np.mean(
        [abs(stats.ttest_1samp(draw, truth).statistic) < stats.t.ppf(0.975, n - 1) for draw in draws]
    )
    assert ours > plain + 0.01
    assert ours > 0.87


def test_correlated_samples_count_for_fewer() -> None:
    random = np.random.default_rng(7)
    assert coverage(lambda: correlated(random, 100, 0.6), 0.0, 600) > 0.91
    assert effective_count(correlated(random, 5000, 0.6)) == pytest.approx(5000 * 0.4 / 1.6, rel=0.15)
    assert effective_count(random.normal(size=5000)) > 4500


def test_edges() -> None:
    assert mean_interval([]) is None
    assert mean_interval([1.0, 2.0]) is None
    same = known(mean_interval([2.0, 2.0, 2.0]))
    assert (same.value, same.low, same.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, float("nan"), 2.0])
    one = known(mean_interval([1.0, 1.1, 0.9, 5.0]))
    assert one.low <= one.value <= one.high
    assert known(mean_interval([0.06, 0.06, 0.001])).low == 0.0
    assert known(mean_interval([0.06, 0.06, -0.001])).low < 0.0
