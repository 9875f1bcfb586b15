"""Sums of two measurements: the end-to-end latency of a cell that shares its LLM.

Means, medians and the variances of the means add up. Degrees of freedom are those of Welch and Satterthwaite;
the half-widths of the medians' intervals, as independent errors, add in quadrature.
"""

from __future__ import annotations

import numpy as np

from vlmprof.analysis.intervals import Mean, describe_mean, mean_ends, medians_with_ends
from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import Floats
from vlmprof.records import END_TO_END_PARTS

SUMMED = "end_to_end_s"


def in_parts(own: CellSamples) -> bool:
    """Return whether the cell's end-to-end latency was sampled in two parts."""
    return SUMMED not in own and all(part in own for part in END_TO_END_PARTS)


def cell_mean(own: CellSamples, column: str) -> Mean | None:
    """Return the mean of a column of a cell, sampled whole or in parts; None with too few samples."""
    if column != SUMMED or not in_parts(own):
        return describe_mean(list(own.get(column, ())))
    first, second = (describe_mean(list(own[part])) for part in END_TO_END_PARTS)
    return None if first is None or second is None else add_means(first, second)


def add_means(first: Mean, second: Mean) -> Mean:
    """Return the sum of two independent means."""
    variances = first.standard_error**2, second.standard_error**2
    error = sum(variances) ** 0.5
    spread = variances[0] ** 2 / first.degrees_of_freedom + variances[1] ** 2 / second.degrees_of_freedom
    freedom = sum(variances) ** 2 / spread if spread else first.degrees_of_freedom
    third = sum(mean.skewness * mean.standard_error**3 for mean in (first, second))
    return Mean(first.value + second.value, error, freedom, third / error**3 if error else 0.0)


def sum_ends(own: CellSamples) -> Floats:
    """Return the ends of the 95 % interval of the sum of the parts' means; NaN with too few samples."""
    mean = cell_mean(own, SUMMED)
    return np.full(2, np.nan) if mean is None else np.array(mean_ends(mean))


def sum_of_medians(own: CellSamples) -> Floats:
    """Return the sum of the parts' medians and the ends of its 95 % interval; NaN with too few samples."""
    first, second = medians_with_ends([own[part] for part in END_TO_END_PARTS])
    middle = first[0] + second[0]
    below, above = (np.hypot(first[0] - first[i], second[0] - second[i]) for i in (1, 2))
    return np.array([middle, middle - below, middle + above])
