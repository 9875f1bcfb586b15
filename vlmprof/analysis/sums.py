"""Sums of two measurements: the end-to-end latency of a cell that shares its LLM.

Means, medians and the variances of the means add up. Degrees of freedom are those of Welch and Satterthwaite;
the half-widths of the medians' intervals, as independent errors, add in quadrature.
"""

from __future__ import annotations

import numpy as np

from vlmprof.analysis.intervals import Mean, added_variances, describe_mean, medians_with_ends
from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import Floats
from vlmprof.records import END_TO_END_PARTS

END_TO_END = "end_to_end_s"
"""The only column that is sampled in parts."""


def in_parts(own: CellSamples, column: str) -> bool:
    """Return whether a column of a cell was sampled in two parts."""
    return column == END_TO_END and column not in own and all(part in own for part in END_TO_END_PARTS)


def cell_mean(own: CellSamples, column: str) -> Mean | None:
    """Return the mean of a column of a cell, sampled whole or in parts; None with too few samples."""
    if not in_parts(own, column):
        return describe_mean(own.get(column, ()))
    first, second = (describe_mean(own[part]) for part in END_TO_END_PARTS)
    return None if first is None or second is None else add_means(first, second)


def add_means(first: Mean, second: Mean) -> Mean:
    """Return the sum of two independent means."""
    both = (first, second)
    variance, freedom = added_variances(both, [mean.standard_error**2 for mean in both])
    value, error = first.value + second.value, variance**0.5
    if not error:
        return Mean(value, 0.0, first.degrees_of_freedom)
    third = sum(mean.skewness * mean.standard_error**3 for mean in both)
    return Mean(value, error, freedom, third / error**3)


def cell_median(own: CellSamples, column: str) -> Floats:
    """Return the median of a column of a cell, sampled whole or in parts, and the ends of its 95 % interval;
    NaN with too few samples."""
    if not in_parts(own, column):
        return medians_with_ends([own.get(column, ())])[0]
    first, second = medians_with_ends([own[part] for part in END_TO_END_PARTS])
    middle = first[0] + second[0]
    below, above = (np.hypot(first[0] - first[i], second[0] - second[i]) for i in (1, 2))
    return np.array([middle, middle - below, middle + above])
