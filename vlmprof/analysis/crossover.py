"""Crossovers: the image size at which one line becomes cheaper than another, with an interval.

                d = log(A / B)
        A cheaper below        │      ╱ B cheaper above
                               │   ╱
     ──────────────────────────┼╱───────────  log(size)
                             ╱ │
                          ╱    crossover

The logarithm of the ratio is interpolated linearly in log(size) between the sizes measured for both
lines. The interval contains every size at which a ratio of 1 cannot be rejected, because |d| does not exceed
the sum of two errors:

* sampling: the t interval of the interpolated d, from the samples of the four means (Fieller's set,
  E. C. Fieller 1954);
* interpolation: at most ½ |d″| (x − xᵢ)(xᵢ₊₁ − x), with |d″| the largest second divided difference of
  the neighbouring points. Without a neighbour to estimate the curvature, the interval spans the whole gap.

An interval that reaches the smallest or largest measured size is marked as open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from vlmprof.analysis.frames import Line, RunSamples
from vlmprof.analysis.intervals import UPPER
from vlmprof.analysis.repeats import mean_over_repeats
from vlmprof.measure.statistics import Floats

_STEPS = 200
_CURVATURE_MARGIN = 1.5


@dataclass(frozen=True)
class Crossover:
    """One change of order between two lines, in size: pixels of image area, or frames."""

    cheaper_below: Line
    cheaper_above: Line
    column: str
    size: float
    low_size: float
    high_size: float
    open_below: bool
    """Whether the interval reaches the smallest size measured for both lines."""
    open_above: bool
    sampled: bool
    """Whether the interval covers the sampling error: not of memory, TTFT, or cells with too few samples."""


_Size = tuple[float, str]
"""The size of a cell and its shape, as shown."""


@dataclass(frozen=True)
class _LogRatio:
    x: Floats
    """log(size) , ascending."""
    d: Floats
    """log(A / B)."""
    variance: Floats
    """Variance of d, from the samples; 0 without samples."""
    freedom: Floats
    sampled: bool


def _between(a: Line, b: Line, column: str, ratio: _LogRatio) -> list[Crossover]:
    """Find the crossovers of two lines by size, at the sizes measured for both."""
    found = []
    for i, j in itertools.pairwise(np.flatnonzero(ratio.d).tolist()):
        left, right = ratio.d[i], ratio.d[j]
        if left * right > 0:
            continue
        at = ratio.x[i] + (ratio.x[j] - ratio.x[i]) * left / (left - right)
        if j > i + 1:  # the lines are equal in between
            at = (ratio.x[i + 1] + ratio.x[j - 1]) / 2
        low, high = _undecided(ratio, float(at))
        below, above = (a, b) if left < right else (b, a)
        found.append(
            Crossover(
                cheaper_below=below,
                cheaper_above=above,
                column=column,
                size=math.exp(at),
                low_size=math.exp(low),
                high_size=math.exp(high),
                open_below=bool(low <= ratio.x[0]),
                open_above=bool(high >= ratio.x[-1]),
                sampled=ratio.sampled,
            )
        )
    return found


def all_crossovers(lines: Sequence[Line], column: str, samples: RunSamples | None = None) -> list[Crossover]:
    """Find the crossovers of every pair of lines that differ only in their backbone."""
    points = {line.key: _points(line, column, samples) for line in lines}
    return [
        crossover
        for a, b in itertools.combinations(lines, 2)
        if a.setting == b.setting and a.backbone != b.backbone
        for crossover in _between(a, b, column, _log_ratio(points[a.key], points[b.key]))
    ]


def _log_ratio(ours: Mapping[_Size, _Point], theirs: Mapping[_Size, _Point]) -> _LogRatio:
    # of several shapes of one size, the same of both lines
    shared = {size: (size, shape) for size, shape in sorted(ours.keys() & theirs.keys())}
    pairs = [(ours[at], theirs[at]) for at in shared.values()]
    return _LogRatio(
        x=np.log(np.array(list(shared), dtype=np.float64)),
        d=np.array([math.log(p.value / q.value) for p, q in pairs]),
        variance=np.array([p.variance + q.variance for p, q in pairs]),
        freedom=np.array([min(p.freedom, q.freedom) for p, q in pairs]),
        sampled=all(p.sampled and q.sampled for p, q in pairs),
    )


@dataclass(frozen=True)
class _Point:
    value: float
    variance: float
    """Variance of the logarithm of the value."""
    freedom: float
    sampled: bool


def _points(line: Line, column: str, samples: RunSamples | None) -> dict[_Size, _Point]:
    points = {}
    sizes = zip(line.sizes.tolist(), line.size_labels, strict=True)
    for size, value, cell_id in zip(sizes, line.measured(column), line.rows["cell_id"], strict=True):
        if not (np.isfinite(value) and value > 0):
            continue
        mean = mean_over_repeats((samples or {}).get(cell_id, {}), column)
        error, freedom = 0.0, math.inf
        if mean is not None:
            error, freedom = mean.standard_error / mean.value, mean.degrees_of_freedom
        points[size] = _Point(float(value), error**2, freedom, mean is not None)
    return points


def _undecided(ratio: _LogRatio, at: float) -> tuple[float, float]:
    """Return the ends of the connected set of x around a crossing in which d = 0 cannot be rejected."""
    gaps = zip(ratio.x[:-1], ratio.x[1:], strict=True)
    grid = np.unique(np.concatenate([[at], *(np.linspace(p, q, _STEPS + 1) for p, q in gaps)]))
    refused = np.flatnonzero(~_cannot_refuse(ratio, grid))
    middle = int(np.searchsorted(grid, at))
    below, above = refused[refused < middle], refused[refused > middle]
    low = grid[below[-1]] if below.size else grid[0]
    high = grid[above[0]] if above.size else grid[-1]
    return float(low), float(high)


def _cannot_refuse(ratio: _LogRatio, x: Floats) -> npt.NDArray[np.bool_]:
    """Return for each x whether |d| is within the sampling and interpolation errors."""
    i = np.clip(np.searchsorted(ratio.x, x, side="right") - 1, 0, ratio.x.size - 2)
    gap = ratio.x[i + 1] - ratio.x[i]
    w = (x - ratio.x[i]) / gap
    d = (1 - w) * ratio.d[i] + w * ratio.d[i + 1]
    variance = (1 - w) ** 2 * ratio.variance[i] + w**2 * ratio.variance[i + 1]
    freedom = np.minimum(np.minimum(ratio.freedom[:-1], ratio.freedom[1:]), 1e6)
    t = stdtrit(freedom, UPPER)
    bend = 0.5 * _curvatures(ratio)[i] * np.maximum(w * (1 - w), 1e-12) * gap**2
    return np.asarray(np.abs(d) <= t[i] * np.sqrt(variance) + bend)


def _curvatures(ratio: _LogRatio) -> Floats:
    """Return for each gap the largest |d″| of the surrounding points; infinite without a third point."""
    slopes = np.diff(ratio.d) / np.diff(ratio.x)
    seconds = 2 * np.abs(np.diff(slopes)) / (ratio.x[2:] - ratio.x[:-2])
    padded = np.concatenate([[-np.inf], seconds, [-np.inf]])
    nearby = np.maximum(padded[:-1], padded[1:])
    return np.where(np.isfinite(nearby), _CURVATURE_MARGIN * nearby, np.inf)
