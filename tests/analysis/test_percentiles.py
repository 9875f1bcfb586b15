"""Percentiles are shown only if the samples support them, and are those of the samples."""

from __future__ import annotations

import numpy as np
import pytest

from vlmprof.analysis.percentiles import supported_percentile


@pytest.mark.parametrize(("percent", "fewest"), [(90, 29), (95, 59), (99, 299)])
def test_a_percentile_needs_enough_samples(percent: int, fewest: int) -> None:
    assert supported_percentile(range(fewest - 1), percent) is None
    assert supported_percentile(range(fewest), percent) is not None


def test_it_is_the_order_statistic() -> None:
    samples = np.random.default_rng(0).exponential(size=400).tolist()
    for percent in (90, 95, 99):
        expected = np.quantile(samples, percent / 100, method="inverted_cdf")
        assert supported_percentile(samples, percent) == expected
