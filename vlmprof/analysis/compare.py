"""Comparison of two runs cell by cell: ratios with intervals, verdicts from a documented test, and a guard.

The test. For a cell and a latency, r = mean of B / mean of A. The 95 % interval of r is Welch's t on
log r (delta method; effective sample counts as in `intervals`). With a margin m (2 % by default):

    same     the 90 % interval is within 1 / (1 + m) … 1 + m: two one-sided tests of size 5 %
             (Schuirmann 1987) reject a difference as large as the margin
    faster   otherwise, the 95 % interval is below 1
    slower   otherwise, the 95 % interval is above 1
    unclear  otherwise, or if both runs lack samples

The samples show only the spread within a run. Two runs of the same code also differ in what is constant
within a run (clocks, memory placement, other load); compare a run with a repetition of it to see by how much.

The guard. `regressions` lists the cells that are slower than allowed, by one-sided Welch tests of
r ≤ 1 + allowed with Holm's correction (1979) over all tested cells: a harmless change is rejected in at most
5 % of comparisons, however many cells there are. `lost` lists the cells that ran in A but not in B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from vlmprof.analysis.frames import RunSamples, axis_columns, numbers
from vlmprof.analysis.intervals import Interval, Mean
from vlmprof.analysis.sums import cell_mean
from vlmprof.backbones.catalog import has_feature_levels
from vlmprof.errors import UserError, unknown
from vlmprof.records import STAGES, Status

LATENCIES = (*(f"{clock}_{stage}_s" for stage in STAGES for clock in ("host", "gpu")), "end_to_end_s")
MEMORIES = ("peak_allocated_bytes", "peak_rss_bytes")
MARGIN = 0.02
LEVEL_AXES = ("level", "levels")
"""Axes that apply only to backbones with feature levels."""
_SIZE = 0.05


class Verdict(StrEnum):
    """The result of the test of B against A."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class CellRatio:
    """One figure of one cell in both runs. `ratio` is B / A; below 1, B is faster (or smaller)."""

    cell: Mapping[str, str]
    """The axes that identify the cell."""
    column: str
    a: float
    b: float
    ratio: Interval | None
    """None if neither run has samples of it."""
    verdict: Verdict | None
    """None for memory, which is not sampled."""
    log_error: float = 0.0
    """Standard error of log(B / A)."""
    degrees_of_freedom: float = math.inf

    @property
    def value(self) -> float:
        """B / A."""
        return self.b / self.a

    def probability_if_at_most(self, allowed: float) -> float:
        """Return the one-sided p value of B / A ≤ `allowed`; 1 without samples."""
        excess = math.log(self.value / allowed)
        if self.ratio is None:
            return 1.0
        if self.log_error == 0:
            return 0.0 if excess > 0 else 1.0
        return float(stdtr(min(self.degrees_of_freedom, 1e6), -excess / self.log_error))


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs."""

    ratios: Sequence[CellRatio]
    lost: Sequence[Mapping[str, str]]
    """Cells that are `ok` in A but ran out of memory, failed or timed out in B."""
    gained: Sequence[Mapping[str, str]]
    """Cells that are `ok` in B but did not run in A."""
    only_a: int
    only_b: int
    margin: float = MARGIN
    no_verdict: str | None = None
    """The reason why the ratios have no verdicts; None if they do."""


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    samples_a: RunSamples | None = None,
    samples_b: RunSamples | None = None,
    *,
    margin: float = MARGIN,
    ignore: Sequence[str] = (),
) -> Comparison:
    """Compare the cells that two frames have in common, matched by their common axes except `ignore`.

    Args:
        a: the rows of the baseline run.
        b: the rows of the run to judge.
        samples_a: raw values of `a` by cell id and column, in seconds; without samples there is no verdict.
        samples_b: raw values of `b`.
        margin: relative differences below this count as the same.
        ignore: axes that may differ.

    Axes that do not apply to a backbone, such as `levels` for one without levels, are not matched.
    Raises `UserError` if no cell is in both frames, if the common axes do not identify a cell, or if an axis
    to ignore is in neither frame.

    >>> import vlmprof
    >>> from vlmprof.analysis.compare import compare
    >>> a, b = vlmprof.load("runs/mine"), vlmprof.load("runs/slower")
    >>> ratios = compare(a.frame, b.frame, a.samples, b.samples).ratios
    >>> [f"{r.cell['backbone']}: {r.value:.2f}, {r.verdict}" for r in ratios if r.column == "gpu_vision_s"]
    ['vit-t: 1.25, slower', 'vit-t: 1.25, slower', 'vmamba-t: 1.25, slower', 'vmamba-t: 1.25, slower']
    """
    known = {*axis_columns(a), *axis_columns(b)}
    for axis in ignore:
        if axis not in known:
            raise unknown("axis to ignore", axis, known)
    shared_axes = set(axis_columns(b)) - set(ignore)
    axes = [axis for axis in axis_columns(a) if axis in shared_axes]
    rows_a, rows_b = _by_axes(a, axes, "the first run"), _by_axes(b, axes, "the second run")
    shared = [key for key in rows_a if key in rows_b]
    if not shared:
        raise UserError(f"the two runs have no cell in common: {_why_none_is_shared(a, b, axes)}")
    values_a, values_b = _values(a), _values(b)
    ratios, lost, gained = [], [], []
    for key in shared:
        i, j = rows_a[key], rows_b[key]
        cell = dict(zip(axes, key, strict=True))
        ran_a, ran_b = (frame["status"].iloc[k] == Status.OK for frame, k in ((a, i), (b, j)))
        if ran_a and not ran_b and b["status"].iloc[j] != Status.SKIPPED:
            lost.append(cell)
        if ran_b and not ran_a:
            gained.append(cell)
        if not (ran_a and ran_b):
            continue
        own_a = (samples_a or {}).get(str(a["cell_id"].iloc[i]), {})
        own_b = (samples_b or {}).get(str(b["cell_id"].iloc[j]), {})
        for column in (*LATENCIES, *MEMORIES):
            x, y = float(values_a[column][i]), float(values_b[column][j])
            if not (x > 0 and y > 0):
                continue
            if column in MEMORIES:
                ratios.append(CellRatio(cell, column, x, y, None, None))
            else:
                means = cell_mean(own_a, column), cell_mean(own_b, column)
                ratios.append(_latency_ratio(cell, column, x, y, means, margin))
    return Comparison(ratios, lost, gained, len(rows_a) - len(shared), len(rows_b) - len(shared), margin)


def without_verdict(comparison: Comparison, why: str) -> Comparison:
    """Remove the verdicts from a comparison and record the reason `why`, such as two kinds of device."""
    ratios = [replace(ratio, verdict=None) for ratio in comparison.ratios]
    return replace(comparison, ratios=ratios, no_verdict=why)


def regressions(
    comparison: Comparison, allowed: float, columns: Sequence[str] = ("end_to_end_s",)
) -> list[CellRatio]:
    """Return the ratios in these columns significantly above 1 + `allowed`, after Holm's correction."""
    tested = [ratio for ratio in comparison.ratios if ratio.column in columns and ratio.ratio is not None]
    ordered = sorted(tested, key=lambda ratio: ratio.probability_if_at_most(1 + allowed))
    found = []
    for rank, ratio in enumerate(ordered):
        if ratio.probability_if_at_most(1 + allowed) > _SIZE / (len(ordered) - rank):
            break
        found.append(ratio)
    return found


def select(comparison: Comparison, columns: Sequence[str] | None) -> Comparison:
    """Restrict a comparison to some columns; None keeps all. Raises `UserError` for an unknown column."""
    if columns is None:
        return comparison
    present = {ratio.column for ratio in comparison.ratios}
    for column in columns:
        if column not in present:
            raise unknown("figure", column, present)
    return replace(comparison, ratios=[ratio for ratio in comparison.ratios if ratio.column in columns])


def guard(comparison: Comparison, allowed: float, columns: Sequence[str]) -> list[CellRatio]:
    """Return `regressions`, but raise `UserError` if no cell could be tested."""
    if not any(ratio.column in columns and ratio.ratio is not None for ratio in comparison.ratios):
        raise UserError(f"nothing to guard: no common cell has samples of {', '.join(columns)} in either run")
    return regressions(comparison, allowed, columns)


def _keys(frame: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the values by which each row is matched."""
    flat = [not has_feature_levels(str(name)) for name in frame["backbone"]]
    columns = []
    for axis in axes:
        values = frame[axis].map(str).tolist()
        if axis in LEVEL_AXES:
            values = ["" if no_levels else value for no_levels, value in zip(flat, values, strict=True)]
        columns.append(values)
    return list(zip(*columns, strict=True))


def _why_none_is_shared(a: pd.DataFrame, b: pd.DataFrame, axes: Sequence[str]) -> str:
    """Describe the axes in which all cells differ, with both sides' values and the option to ignore them."""

    def values(frame: pd.DataFrame, axis: str) -> str:
        words = list(dict.fromkeys(frame[axis].map(str)))
        return ", ".join(words[:4]) + (", …" if len(words) > 4 else "")

    def blocks(axis: str) -> bool:
        others = [other for other in axes if other != axis]
        return bool(set(_keys(a, others)) & set(_keys(b, others)))

    blocking = [axis for axis in axes if blocks(axis)]
    if not blocking:
        blocking = [axis for axis in axes if not set(a[axis].map(str)) & set(b[axis].map(str))] or list(axes)
    differences = "; ".join(
        f"{axis} is {values(a, axis)} in A and {values(b, axis)} in B" for axis in blocking
    )
    ignorable = [axis for axis in blocking if axis not in ("backbone", "resolution")]
    hint = " ".join(f"--ignore {axis}" for axis in ignorable)
    return f"{differences}{f'; {hint} compares them anyway' if hint else ''}"


def _by_axes(frame: pd.DataFrame, axes: Sequence[str], which: str) -> dict[tuple[str, ...], int]:
    keys = _keys(frame, axes)
    index = {key: i for i, key in enumerate(keys)}
    if len(index) < len(keys):
        raise UserError(f"{which} has cells that differ only in an axis that the other run lacks")
    return index


def _values(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {column: numbers(frame, column) for column in (*LATENCIES, *MEMORIES)}


def _latency_ratio(
    cell: Mapping[str, str],
    column: str,
    a: float,
    b: float,
    means: tuple[Mean | None, Mean | None],
    margin: float,
) -> CellRatio:
    sampled = [mean for mean in means if mean is not None]
    if not sampled:
        return CellRatio(cell, column, a, b, None, Verdict.UNCLEAR)
    parts = [(mean.standard_error / mean.value) ** 2 for mean in sampled]
    variance = sum(parts)
    freedom = (
        variance**2
        / sum(part**2 / mean.degrees_of_freedom for part, mean in zip(parts, sampled, strict=True))
        if variance > 0
        else math.inf
    )
    log_ratio, error = math.log(b / a), math.sqrt(variance)

    def interval(confidence: float) -> Interval:
        t = float(stdtrit(min(freedom, 1e6), (1 + confidence) / 2))
        return Interval(b / a, math.exp(log_ratio - t * error), math.exp(log_ratio + t * error), confidence)

    wide, narrow = interval(0.95), interval(0.90)
    if narrow.low >= 1 / (1 + margin) and narrow.high <= 1 + margin:
        verdict = Verdict.SAME
    elif wide.high < 1:
        verdict = Verdict.FASTER
    elif wide.low > 1:
        verdict = Verdict.SLOWER
    else:
        verdict = Verdict.UNCLEAR
    return CellRatio(cell, column, a, b, wide, verdict, error, freedom)
