"""Statistics of samples: a confidence interval for the median, and warnings about the distribution.

No sample is ever dropped; the median is robust against outliers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST = 6
"""Fewest samples for an interval: of five, even the extremes enclose the median with only 1 - 2/2⁵ < 95 %."""

FEWEST_TO_JUDGE = 18
"""Fewest samples for warnings: with fewer, any shape may be due to chance."""

NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""

MAD_TO_SIGMA = 1.4826
"""Ratio of standard deviation to median absolute deviation for a normal distribution."""

MEDIAN_TO_MEAN_ERROR = 1.2533
"""Ratio of the standard errors of median and mean for a normal distribution: √(π/2)."""

MOST_CORRELATED = 0.95
"""Upper bound on the rank correlation of neighbours."""

DRIFT_SHARE, DRIFT_ERRORS = 0.02, 5.0
"""Smallest reported drift, as a share of the median and in standard errors."""

MODES_APART, LEAST_ASHMAN_D, BETWEEN_SHARE = 0.03, 4.0, 0.05
"""Thresholds for two modes: distance as a share of the median, Ashman's D, and most samples between them."""

SMALLEST_MODE = 5
"""The smaller mode has at least one in this many samples."""

JITTER_SHARE = 0.1
"""Interquartile range, as a share of the median, above which samples count as jittered."""

Floats = npt.NDArray[np.float64]
Values = Sequence[float] | Floats


@dataclass(frozen=True)
class MedianInterval:
    """A median and the ends of its 95 % confidence interval, in the unit of the samples."""

    median: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half the width of the interval as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else math.inf


def median_interval(samples: Values) -> MedianInterval | None:
    """Return the median with its 95 % interval from order statistics, or None for too few samples.

    The ranks are n/2 ± z √n/2 of the binomial distribution (David & Nagaraja, Order Statistics, 2003,
    section 7.1), with n the effective count for correlated samples. The interval is distribution-free.
    """
    if not len(samples):
        return None
    median, low, high = median_intervals(np.asarray(samples, dtype=np.float64)[None, :])[0].tolist()
    return None if math.isnan(low) else MedianInterval(median, low, high)


def median_intervals(streams: Floats) -> Floats:
    """Compute `median_interval` for several streams of equal length: (streams, n) -> (streams, 3).

    Columns are median, low end and high end; both ends are NaN for too few samples.
    """
    n = streams.shape[1]
    effective = effective_counts(streams)
    ordered = np.sort(streams, axis=1)
    low = np.maximum(np.floor((n + 1) * (0.5 - NORMAL_975 / 2 / np.sqrt(effective))), 1).astype(np.intp)
    each = np.arange(len(streams))
    ends = np.column_stack([ordered[each, low - 1], ordered[each, n - low]])
    ends[effective < FEWEST] = np.nan
    return np.column_stack([np.median(ordered, axis=1), ends])


def effective_count(samples: Values) -> float:
    """Return the number of independent samples equivalent to these consecutive, correlated ones.

    The count is n (1 - ρ) / (1 + ρ) of a first-order autoregression. ρ is the rank correlation of neighbours,
    which is robust against outliers, corrected for its bias -(1 + 3ρ) / n (Marriott & Pope 1954). A ρ within
    chance, 1 / √n, counts as 0.
    """
    return float(effective_counts(np.asarray(samples, dtype=np.float64)[None, :])[0])


def effective_counts(streams: Floats) -> Floats:
    """Compute `effective_count` for several streams of equal length: (streams, n) -> (streams,)."""
    n = streams.shape[1]
    if n < FEWEST:
        return np.full(len(streams), float(n))
    ranks = _ranks(streams) - (n - 1) / 2
    raw = (ranks[:, 1:] * ranks[:, :-1]).sum(axis=1) / np.maximum(np.square(ranks).sum(axis=1), 1.0)
    rho = np.minimum(raw + (1 + 3 * raw) / n, MOST_CORRELATED)
    return np.where(raw > 1 / math.sqrt(n), np.maximum(n * (1 - rho) / (1 + rho), 1.0), float(n))


def _ranks(streams: Floats) -> Floats:
    """Return the ranks in each row, counted from 0. Equal values, as of a coarse clock, share a mean rank."""
    order = np.argsort(streams, axis=1)
    ordered = np.take_along_axis(streams, order, axis=1)
    place = np.broadcast_to(np.arange(streams.shape[1]), streams.shape)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(np.pad(differs, ((0, 0), (1, 0))), place, 0), axis=1)
    ends = np.where(np.pad(differs, ((0, 0), (0, 1))), place, streams.shape[1] - 1)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(streams.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    return ranks


def distribution_warnings(samples: Values) -> list[str]:
    """Return warnings that qualify the median: `drifted`, `bimodal` or `jittered`, each with its size."""
    values = np.asarray(samples, dtype=np.float64)
    if values.size < FEWEST_TO_JUDGE or not (median := float(np.median(values))):
        return []
    found = []
    drift = _drift(values)
    if drift is not None:
        found.append(f"drifted by {drift:+.1%} from its first third to its last")
    modes = _two_modes(values)
    if modes is not None:
        found.append(f"bimodal, with modes {modes[0]:.3g} s and {modes[1]:.3g} s")
    spread = float(np.subtract(*np.quantile(values, [0.75, 0.25]))) / median
    if modes is None and drift is None and spread > JITTER_SHARE:
        found.append(f"jittered: its interquartile range is {spread:.0%} of its median")
    return found


def _drift(values: Floats) -> float | None:
    """Return the relative change between the medians of the outer thirds, if large and significant.

    The thirds must also differ in ranks (Mann & Whitney 1947), because the median of samples with two modes
    is either of them by chance.
    """
    third = values.size // 3
    first, last = values[:third], values[-third:]
    before, after = float(np.median(first)), float(np.median(last))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(np.concatenate([first - before, last - after]))))
    error = MEDIAN_TO_MEAN_ERROR * sigma * math.sqrt(2 / third)
    change = after - before
    ordered = np.sort(first)
    lower = [np.searchsorted(ordered, last, side="left"), np.searchsorted(ordered, last, side="right")]
    shift = float(np.mean(lower)) / third - 0.5
    ranks_differ = abs(shift) > NORMAL_975 * math.sqrt((2 * third + 1) / 12) / third
    large = abs(change) > max(DRIFT_SHARE * before, DRIFT_ERRORS * error)
    return change / before if before and large and ranks_differ else None


def _two_modes(values: Floats) -> tuple[float, float] | None:
    """Return the medians of two modes, if Ashman's D of the best split in two exceeds 4.

    D = √2 |μ₁ - μ₂| / √(σ₁² + σ₂²) (Ashman, Bird & Zepf 1994). Each mode must have a fifth of the samples,
    the modes must be 3 % apart, and the middle half of the gap between them must be nearly empty, which rules
    out a long tail.
    """
    ordered = np.sort(values)
    n, least = ordered.size, max(ordered.size // SMALLEST_MODE, 3)
    sums = np.cumsum(ordered - ordered[0])
    cuts = np.arange(least, n - least + 1)
    below, above = sums[cuts - 1] / cuts, (sums[-1] - sums[cuts - 1]) / (n - cuts)
    # the split with the least variance within is that with the most between
    cut = int(cuts[int(np.argmax(cuts * (n - cuts) * np.square(above - below)))])
    low, high = ordered[:cut], ordered[cut:]
    center, gap = float(np.mean(high) + np.mean(low)) / 2, float(np.mean(high) - np.mean(low))
    scatter = math.sqrt(float(low.var() + high.var()))
    between = np.count_nonzero(np.abs(ordered - center) < gap / 4)
    apart = (
        gap > MODES_APART * float(np.median(ordered))
        and math.sqrt(2) * gap > LEAST_ASHMAN_D * scatter
        and between <= BETWEEN_SHARE * n
    )
    return (float(np.median(low)), float(np.median(high))) if apart else None
