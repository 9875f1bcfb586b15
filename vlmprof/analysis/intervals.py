"""Intervals of means and of ratios of means, from the raw samples of a cell.

Latency samples are few, skewed to the right and correlated in time, and each of these makes the
textbook interval too narrow. Three corrections are made, in closed form, so that the same samples
always give the same interval:

* few: Student's t instead of the normal distribution;
* skewed: Hall's transformation, which removes the skewness of the t statistic (P. Hall, "On the
  removal of skewness by transformation", J. R. Stat. Soc. B 54 (1992) 221–228, the cubic g);
* correlated: n is replaced by the effective count n (1 − ρ) / (1 + ρ) of a first-order
  autoregression, with ρ the lag-one autocorrelation of the samples, its small-sample bias
  −(1 + 3ρ) / n (Marriott & Pope 1954) taken back; a ρ that white noise would show in one run of
  twenty by chance, 1.645 / √n (Bartlett 1946), counts as none.

What no interval of one run can hold is how much a second run of the same cell would differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmprof.analysis import student

FEWEST = 3
"""With fewer samples no interval is given: their spread says next to nothing."""

_STRONGEST_CORRELATION = 0.95
_CHANCE = 1.645


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, all in the unit of the samples."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """The same interval in another unit, for a positive factor."""
        return Interval(self.value * factor, self.low * factor, self.high * factor, self.confidence)


@dataclass(frozen=True)
class Mean:
    """A mean with the standard error and degrees of freedom that its samples support."""

    value: float
    standard_error: float
    degrees_of_freedom: float
    skewness: float = 0.0
    """Skewness of the mean itself: that of the samples over the root of their effective count."""


def describe_mean(samples: Sequence[float] | npt.NDArray[np.float64]) -> Mean | None:
    """Mean, standard error and degrees of freedom of one cell's samples, in the order they were taken.

    None for fewer than `FEWEST` samples. Raises `ValueError` for a sample that is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("samples must be finite numbers")
    n = values.size
    if n < FEWEST:
        return None
    mean = float(values.mean())
    centred = values - mean
    sum_of_squares = float(centred @ centred)
    if sum_of_squares == 0:
        return Mean(mean, 0.0, n - 1)
    effective = effective_count(values)
    variance = sum_of_squares / (n - 1)
    skewness = float(np.mean(centred**3)) / variance**1.5
    return Mean(mean, math.sqrt(variance / effective), effective - 1, skewness / math.sqrt(effective))


def effective_count(samples: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """How many independent samples tell as much about the mean as these; at least `FEWEST`."""
    values = np.asarray(samples, dtype=np.float64)
    centred = values - values.mean()
    n, sum_of_squares = values.size, float(centred @ centred)
    if sum_of_squares == 0:
        return float(n)
    raw = float(centred[1:] @ centred[:-1]) / sum_of_squares
    if raw < _CHANCE / math.sqrt(n):
        return float(n)
    rho = min(raw + (1 + 3 * raw) / n, _STRONGEST_CORRELATION)
    return max(n * (1 - rho) / (1 + rho), FEWEST)


def mean_interval(
    samples: Sequence[float] | npt.NDArray[np.float64], confidence: float = 0.95
) -> Interval | None:
    """The mean of one cell's samples and its interval, or None for fewer than `FEWEST` samples."""
    mean = describe_mean(samples)
    if mean is None:
        return None
    t = student.quantile((1 + confidence) / 2, mean.degrees_of_freedom)
    low = mean.value - mean.standard_error * _unskewed(t, mean.skewness)
    high = mean.value - mean.standard_error * _unskewed(-t, mean.skewness)
    return Interval(mean.value, min(low, mean.value), max(high, mean.value), confidence)


def _unskewed(t: float, skewness: float) -> float:
    """Hall's g⁻¹: the quantile of a t statistic whose mean has this skewness."""
    if abs(skewness) < 1e-6:
        return t
    return 3 / skewness * float(np.cbrt(1 + skewness * (t - skewness / 6)) - 1)
