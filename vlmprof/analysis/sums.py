"""A cell that shares its LLM has an end-to-end latency made of two measurements, and samples of each.

Their means and medians add up. The variances of the means do too, with the degrees of freedom of Welch and
Satterthwaite; the ends of the medians' intervals are joined as independent errors are, in quadrature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vlmprof.analysis.intervals import Mean, describe_mean, mean_ends, medians_with_ends
from vlmprof.records import END_TO_END_PARTS

CellSamples = Mapping[str, Sequence[float]]
"""Raw values of one cell by column."""

Floats = npt.NDArray[np.float64]


SUMMED = "end_to_end_s"


def in_parts(own: CellSamples) -> bool:
    """Whether the cell's end-to-end latency was sampled in parts."""
    return SUMMED not in own and all(part in own for part in END_TO_END_PARTS)


def cell_mean(own: CellSamples, column: str) -> Mean | None:
    """The mean of a column of a cell, sampled as it is or in parts; None without enough samples."""
    if column != SUMMED or not in_parts(own):
        return describe_mean(list(own.get(column, ())))
    first, second = (describe_mean(list(own[part])) for part in END_TO_END_PARTS)
    return None if first is None or second is None else add_means(first, second)


def add_means(first: Mean, second: Mean) -> Mean:
    """The sum of two independent means."""
    variances = first.standard_error**2, second.standard_error**2
    error = sum(variances) ** 0.5
    spread = variances[0] ** 2 / first.degrees_of_freedom + variances[1] ** 2 / second.degrees_of_freedom
    freedom = sum(variances) ** 2 / spread if spread else first.degrees_of_freedom
    third = sum(mean.skewness * mean.standard_error**3 for mean in (first, second))
    return Mean(first.value + second.value, error, freedom, third / error**3 if error else 0.0)


def sum_ends(own: CellSamples) -> Floats:
    """Low and high end of the 95 % interval of the sum of the parts' means; NaN for too few samples."""
    mean = cell_mean(own, SUMMED)
    return np.full(2, np.nan) if mean is None else np.array(mean_ends(mean))


def sum_of_medians(own: CellSamples) -> Floats:
    """The sum of the parts' medians with low and high end of its 95 % interval; NaN for too few samples."""
    first, second = medians_with_ends([own[part] for part in END_TO_END_PARTS])
    middle = first[0] + second[0]
    below, above = (np.hypot(first[0] - first[i], second[0] - second[i]) for i in (1, 2))
    return np.array([middle, middle - below, middle + above])
