"""Confidence intervals of means and medians, from the raw samples of a cell.

Intervals of medians come from `measure.statistics`, which the stopping rule uses too.

Latency samples are few, skewed to the right and correlated in time, and each of these makes the textbook
interval of a mean too narrow. Three closed-form corrections keep the result deterministic:

* few: Student's t instead of the normal distribution;
* skewed: Hall's transformation, which removes the skewness of the t statistic (P. Hall, "On the
  removal of skewness by transformation", J. R. Stat. Soc. B 54 (1992) 221–228, the cubic g);
* correlated: n is replaced by the effective count of `measure.statistics`.

An interval from one measurement does not cover the variation between repeats of it: see `repeats`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmprof.measure.statistics import Floats, effective_counts, median_intervals

UPPER = 0.975
"""The quantile of Student's t in a 95 % interval."""
FEWEST = 3
"""Fewest samples for an interval: the spread of fewer says next to nothing."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """Scale the interval by a positive factor, to change its unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Mean:
    """A mean with the standard error and degrees of freedom that its samples support."""

    value: float
    standard_error: float
    degrees_of_freedom: float
    skewness: float = 0.0
    """Skewness of the mean: that of the samples divided by the square root of their effective count."""
    repeats: int = 1
    """Number of repeats whose spread the error is; 1 for the spread within one measurement."""


def describe_mean(samples: Sequence[float] | Floats) -> Mean | None:
    """Compute the mean, standard error and degrees of freedom of one cell's samples, in measured order.

    Returns None for fewer than `FEWEST` samples. Raises `ValueError` if a sample is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    return None if values.size < FEWEST else Mean(*_describe(values[None, :])[:, 0].tolist())


def mean_of_repeats(values: Sequence[float]) -> Mean:
    """Return the mean of at least two repeats' values, with the standard error of their spread."""
    spread = float(np.std(values, ddof=1))
    return Mean(float(np.mean(values)), spread / len(values) ** 0.5, len(values) - 1, repeats=len(values))


def added_variances(means: Sequence[Mean], variances: Sequence[float]) -> tuple[float, float]:
    """Add the variances of independent means; return the sum and its degrees of freedom (Satterthwaite)."""
    total = sum(variances)
    pairs = zip(means, variances, strict=True)
    spread = sum(variance**2 / mean.degrees_of_freedom for mean, variance in pairs)
    return total, total**2 / spread if spread > 0 else math.inf


def mean_ends(mean: Mean) -> tuple[float, float]:
    """Return the low and high end of the interval of a mean.

    Repeats are few and far apart, so the interval of theirs is that of the logarithm, which stays positive.
    """
    if mean.repeats > 1 and mean.value > 0:
        from scipy.special import stdtrit

        t = float(stdtrit(mean.degrees_of_freedom, UPPER))
        factor = math.exp(t * mean.standard_error / mean.value)
        return mean.value / factor, mean.value * factor
    described = np.array([[mean.value], [mean.standard_error], [mean.degrees_of_freedom], [mean.skewness]])
    low, high = _ends(described)[0].tolist()
    return low, high


def mean_interval(samples: Sequence[float] | Floats) -> Interval | None:
    """Return the mean of one cell's samples with its interval; None for fewer than `FEWEST` samples."""
    mean = describe_mean(samples)
    low, high = interval_ends([samples])[0].tolist()
    return None if mean is None else Interval(mean.value, low, high)


def interval_ends(cells: Sequence[Sequence[float] | Floats]) -> Floats:
    """Return the ends of the interval of each cell's mean, shape (cells, 2).

    NaN for a cell with fewer than `FEWEST` samples. Raises `ValueError` if a sample is not finite.
    """
    ends = np.full((len(cells), 2), np.nan)
    for members, values in _by_count(cells):
        if values.shape[1] >= FEWEST:
            ends[members] = _ends(_describe(values))
            # the mean of non-negative samples is not negative
            positive = np.array(members)[values.min(axis=1) >= 0]
            ends[positive, 0] = np.maximum(ends[positive, 0], 0.0)
    return ends


def medians_with_ends(cells: Sequence[Sequence[float] | Floats]) -> Floats:
    """Return each cell's median and the ends of its 95 % interval, shape (cells, 3).

    The ends are NaN for too few samples; all values are NaN without samples.
    """
    found = np.full((len(cells), 3), np.nan)
    for members, values in _by_count(cells):
        if values.size:
            found[members] = median_intervals(values)
    return found


def _by_count(cells: Sequence[Sequence[float] | Floats]) -> Iterator[tuple[list[int], Floats]]:
    """Group cells by sample count: yield their positions, and their samples of shape (cells, count)."""
    places: dict[int, list[int]] = {}
    for i, samples in enumerate(cells):
        places.setdefault(len(samples), []).append(i)
    for members in places.values():
        yield members, np.array([cells[i] for i in members], dtype=np.float64)


def _describe(values: Floats) -> Floats:
    """Compute the fields of `Mean`, shape (4, cells), from samples of shape (cells, count)."""
    if not np.isfinite(values).all():
        raise ValueError("samples must be finite numbers")
    means = values.mean(axis=1)
    centred = values - means[:, None]
    variances = np.square(centred).sum(axis=1) / (values.shape[1] - 1)
    third = (centred**3).mean(axis=1)
    skewness = np.divide(third, variances**1.5, out=np.zeros_like(means), where=variances > 0)
    effective = np.maximum(effective_counts(values), FEWEST)
    return np.array([means, np.sqrt(variances / effective), effective - 1, skewness / np.sqrt(effective)])


def _ends(described: Floats) -> Floats:
    """Compute the ends of the intervals, shape (cells, 2), from the fields of `Mean`, shape (4, cells)."""
    # takes longer to import than `vlmprof plan` takes to answer
    from scipy.special import stdtrit

    means, errors, freedom, skewness = described
    t = stdtrit(freedom, UPPER)
    low = means - errors * _unskewed(t, skewness)
    high = means - errors * _unskewed(-t, skewness)
    return np.column_stack([np.minimum(low, means), np.maximum(high, means)])


def _unskewed(t: Floats, skewness: Floats) -> Floats:
    """Apply Hall's g⁻¹: the quantiles of t statistics whose means have these skewnesses."""
    even = np.abs(skewness) < 1e-6
    safe = np.where(even, 1.0, skewness)
    return np.where(even, t, 3 / safe * (np.cbrt(1 + safe * (t - safe / 6)) - 1))
