"""Comparison of two runs cell by cell: ratios with intervals, verdicts from a documented test, and a guard.

The test. For a cell and a latency, r = mean of B / mean of A. The 95 % interval of r is Welch's t on
log r (delta method; effective sample counts as in `intervals`). With a margin m (2 % by default):

    same     the 90 % interval is within 1 / (1 + m) … 1 + m: two one-sided tests of size 5 %
             (Schuirmann 1987) reject a difference as large as the margin
    faster   otherwise, the 95 % interval is below 1
    slower   otherwise, the 95 % interval is above 1
    unclear  otherwise, or with too few samples

The samples of a cell show only the spread within its process. Measurements of the same code also differ in
what is constant in a process (clocks, memory placement, other load). If a run has repeats
(`sweep --repeat`), the standard error of its mean is that of their spread (see `repeats`). If only one of the
runs has repeats, a measurement of the other is taken to vary as much as one of them, which makes the interval
a prediction interval; its own spread counts if that is larger. `CellRatio.repeats` says which it was.

The guard. `regressions` lists the cells that are slower than allowed, by one-sided Welch tests of
r ≤ 1 + allowed with Holm's correction (1979) over all tested cells: a harmless change is rejected in at most
5 % of comparisons, however many cells there are. `lost` lists the cells that ran in A but not in B, `missing`
those that B lacks or skipped, and a ratio has `too_few` samples if it cannot be tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import pandas as pd
from scipy.special import stdtr, stdtrit

from vlmprof.analysis.frames import RunSamples, numbers
from vlmprof.analysis.intervals import UPPER, Interval, Mean, added_variances
from vlmprof.analysis.matching import Mismatch, match_cells
from vlmprof.analysis.repeats import mean_over_repeats, sample_count
from vlmprof.errors import UserError, check_known
from vlmprof.measure.samples import CellSamples
from vlmprof.records import STAGES, Status

LATENCIES = (*(f"{clock}_{stage}_s" for stage in STAGES for clock in ("host", "gpu")), "end_to_end_s")
MEMORIES = ("peak_allocated_bytes", "peak_rss_bytes")
MARGIN = 0.02
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
    """None if a run has too few samples of it."""
    verdict: Verdict | None
    """None for memory, which is not sampled."""
    log_error: float = 0.0
    """Standard error of log(B / A)."""
    degrees_of_freedom: float = math.inf
    repeats: tuple[int, int] = (1, 1)
    """Repeats of the cell in A and B whose spread the interval covers; 1 for the spread within a process,
    and 0 for an exact value."""
    too_few: Mapping[str, int] = field(default_factory=dict)
    """The number of iterations of each run, A or B, that has fewer than a verdict needs."""

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
class Lost:
    """A cell that is `ok` in A but ran out of memory, failed or timed out in B."""

    cell: Mapping[str, str]
    status: Status
    """How it ended in B."""
    oom_stage: str | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs."""

    ratios: Sequence[CellRatio]
    lost: Sequence[Lost]
    gained: Sequence[Mapping[str, str]]
    """Cells that are `ok` in B but did not run in A."""
    missing: Sequence[Mapping[str, str]]
    """Cells that are `ok` in A and that B lacks or skipped."""
    only_a: int
    only_b: int
    mismatches: Sequence[Mismatch] = ()
    """The axes that keep the cells that only one run has apart."""
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
        samples_a: raw values of `a` by cell id and column, in seconds. None for exact values, as published
            points are; if both are exact, there is no verdict.
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
    matching = match_cells(a, b, ignore)
    status_a, status_b = (frame["status"].tolist() for frame in (a, b))
    values_a, values_b = ({c: numbers(frame, c) for c in (*LATENCIES, *MEMORIES)} for frame in (a, b))
    ratios: list[CellRatio] = []
    lost, gained = [], []
    missing = [cell for cell, i in matching.only_a if status_a[i] == Status.OK]
    for cell, i, j in matching.pairs:
        ran_a, ran_b = status_a[i] == Status.OK, status_b[j] == Status.OK
        if ran_a and not ran_b:
            if status_b[j] == Status.SKIPPED:
                missing.append(cell)
            else:
                lost.append(Lost(cell, Status(status_b[j]), _text(b, "oom_stage", j)))
        if ran_b and not ran_a:
            gained.append(cell)
        if not (ran_a and ran_b):
            continue
        own = [
            None if known is None else known.get(str(frame["cell_id"].iloc[k]), {})
            for known, frame, k in ((samples_a, a, i), (samples_b, b, j))
        ]
        for column in (*LATENCIES, *MEMORIES):
            x, y = float(values_a[column][i]), float(values_b[column][j])
            if not (x > 0 and y > 0):
                continue
            ratio = CellRatio(cell, column, x, y, None, None)
            ratios.append(ratio if column in MEMORIES else _latency_ratio(ratio, own, margin))
    only = len(matching.only_a), len(matching.only_b)
    return Comparison(ratios, lost, gained, missing, *only, matching.mismatches, margin)


def _text(frame: pd.DataFrame, column: str, i: int) -> str | None:
    value = frame[column].iloc[i] if column in frame else None
    return value if isinstance(value, str) else None


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
    check_known("figure", columns, {ratio.column for ratio in comparison.ratios})
    return replace(comparison, ratios=[ratio for ratio in comparison.ratios if ratio.column in columns])


@dataclass(frozen=True)
class Guarded:
    """What a guard found."""

    slower: Sequence[CellRatio]
    """Significantly slower than allowed."""
    lost: Sequence[Lost]
    missing: Sequence[Mapping[str, str]]
    untested: Sequence[CellRatio]
    """Ratios with too few samples."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not (self.slower or self.lost or self.missing or self.untested)


def guard(
    comparison: Comparison, allowed: float, columns: Sequence[str], allow_missing: bool = False
) -> Guarded:
    """Return what keeps B from being as fast as A: cells slower than 1 + `allowed`, cells that no longer run,
    and, unless `allow_missing`, cells without a verdict, because B lacks them or samples are too few.

    Raises `UserError` if no cell has samples in either run.
    """
    guarded = [ratio for ratio in comparison.ratios if ratio.column in columns]
    untested = [ratio for ratio in guarded if ratio.too_few]
    sampled = any(ratio.ratio is not None or len(ratio.too_few) == 1 for ratio in guarded)
    if not sampled and not any(count for ratio in untested for count in ratio.too_few.values()):
        raise UserError(f"nothing to guard: no common cell has samples of {', '.join(columns)} in either run")
    slower = regressions(comparison, allowed, columns)
    if allow_missing:
        return Guarded(slower, comparison.lost, [], [])
    return Guarded(slower, comparison.lost, comparison.missing, untested)


def _latency_ratio(known: CellRatio, own: Sequence[CellSamples | None], margin: float) -> CellRatio:
    """Add the interval and the verdict to a ratio. `own` has the samples of A and B, None if exact."""
    means = [None if samples is None else mean_over_repeats(samples, known.column) for samples in own]
    counts = {
        which: sample_count(samples, known.column)
        for which, samples, mean in zip("AB", own, means, strict=True)
        if samples is not None and mean is None
    }
    sampled = [mean for mean in means if mean is not None]
    if counts or not sampled:
        return replace(known, verdict=Verdict.UNCLEAR, too_few=counts)
    variance, freedom = _log_variance(sampled)
    log_ratio, error = math.log(known.value), math.sqrt(variance)

    def interval(upper: float) -> Interval:
        t = float(stdtrit(min(freedom, 1e6), upper))
        return Interval(known.value, math.exp(log_ratio - t * error), math.exp(log_ratio + t * error))

    wide, narrow = interval(UPPER), interval(0.95)  # of 95 % and of 90 %
    if narrow.low >= 1 / (1 + margin) and narrow.high <= 1 + margin:
        verdict = Verdict.SAME
    elif wide.high < 1:
        verdict = Verdict.FASTER
    elif wide.low > 1:
        verdict = Verdict.SLOWER
    else:
        verdict = Verdict.UNCLEAR
    repeats = [0 if mean is None else mean.repeats for mean in means]
    return replace(
        known, ratio=wide, verdict=verdict, log_error=error, degrees_of_freedom=freedom,
        repeats=(repeats[0], repeats[1]),
    )  # fmt: skip


def _log_variance(means: Sequence[Mean]) -> tuple[float, float]:
    """Return the variance of the difference of the logarithms of these means, and its degrees of freedom."""
    parts = [(mean.standard_error / mean.value) ** 2 for mean in means]
    if len(means) == 2 and (means[0].repeats > 1) != (means[1].repeats > 1):
        many = 0 if means[0].repeats > 1 else 1
        borrowed = max(parts[many] * means[many].repeats, parts[1 - many])
        return parts[many] + borrowed, means[many].degrees_of_freedom
    return added_variances(means, parts)
