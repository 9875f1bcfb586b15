"""A summary of a run as data: the cheapest encoder at each size, crossovers, shares, limits, memory, doubts.

Values are means, as in crossovers. A line is not shown to be cheaper than another if their 95 % intervals
overlap or are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from vlmprof.analysis.charts import gpu_waiting, host_over_gpu
from vlmprof.analysis.crossover import Crossover, all_crossovers
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import Line, any_measured, memory_column, numbers, ratio
from vlmprof.analysis.intervals import Interval, mean_ends, mean_interval, mean_of_repeats
from vlmprof.analysis.levers import LeverPrice, lever_prices
from vlmprof.analysis.repeats import repeats_of
from vlmprof.measure.statistics import Floats
from vlmprof.records import Status

MEMORY_MARGIN = 0.02
"""Peaks that differ by a smaller share count as equal: there is one reading per cell, and no interval."""
LAUNCH_BOUND = 0.9
"""Smallest host latency, as a share of the GPU's, of a stage that the host limits."""
WAITING = 0.5
"""Smallest share of a stage without a running kernel if the host limits it."""
REACHED = 0.5
"""Smallest share of a ceiling that limits a stage."""
ABOVE = 1.005
"""Smallest share of a ceiling that says that the ceiling was measured too low."""

Bound = Literal["launches", "arithmetic", "memory traffic", "neither"]


@dataclass(frozen=True)
class Measured:
    """A line's value at one image size, with NaN for the ends of an unknown interval."""

    line: Line
    size: float
    resolution: str
    """As shown: `512²`, or `8 frames`."""
    value: Interval


@dataclass(frozen=True)
class Ranking:
    """The cheapest lines at one image size."""

    cheapest: Measured
    tied: Sequence[Measured]
    """Other lines that are not shown to be more expensive, cheapest first."""
    next: Measured | None
    """The cheapest line that is shown to be more expensive."""

    @property
    def front(self) -> Sequence[Measured]:
        """The cheapest line and those tied with it."""
        return [self.cheapest, *self.tied]


@dataclass(frozen=True)
class Limit:
    """What limits the encoder of a line at one image size."""

    at: Measured
    """Its latency."""
    bound: Bound
    share: Interval
    """The share of the ceiling that limits it, or the larger of both if neither does; for launches, the share
    of its latency in which the GPU waits or the host is busy, without an interval."""


@dataclass(frozen=True)
class MemoryEnd:
    """The last size of a line that ran before it ran out of memory."""

    line: Line
    largest: Measured | None
    """Its peak memory; None if no size ran."""


@dataclass(frozen=True)
class Doubts:
    """What is doubtful about a run, as numbers of cells."""

    measured: int
    failed: int
    """Cells that ended in an error or a timeout."""
    disturbed: int
    warned: int
    """Measured cells with warnings about their samples or output."""
    without_interval: int
    above_ceiling: int
    """Cells with a rate above that of a large matrix product: the ceiling was taken under load."""
    widest: Measured | None
    """The end-to-end latency with the widest interval, relative to its value."""


@dataclass(frozen=True)
class Summary:
    """The findings of a run."""

    latency: Sequence[Sequence[Ranking]]
    """Rankings by end-to-end latency, by size, for each setting of the other axes."""
    memory: Sequence[Sequence[Ranking]]
    crossovers: Sequence[Crossover]
    """Of end-to-end latency, with an interval that ends within the measured sizes on at least one side."""
    undecided_crossovers: int
    """Further ones, whose intervals have no end there or lack the sampling error."""
    levers: Sequence[LeverPrice]
    """What changing each axis but the backbone and the resolution does."""
    shares: Sequence[Measured]
    """The encoder's share of the end-to-end latency, at the smallest and largest size of each line."""
    limits: Sequence[Limit]
    """At the largest size of each line."""
    memory_ends: Sequence[MemoryEnd]
    """One for each line that ran out of memory."""
    largest: Measured | None
    """The largest image that was measured."""
    doubts: Doubts


def summarize(estimates: Estimates, lines: Sequence[Line]) -> Summary:
    """Compute the findings of a run from the estimates of its frame and the lines to compare."""
    frame = estimates.frame
    latency = _values(estimates, lines, "end_to_end_s")
    memory = memory_column(frame)
    peaks = _values(estimates, lines, memory) if memory else {}
    every = [one for own in latency.values() for one in own]
    crossovers = all_crossovers(lines, "end_to_end_s", estimates.samples)
    decided = [one for one in crossovers if one.sampled and not (one.open_below and one.open_above)]
    return Summary(
        latency=[_rankings(group, latency, _differ) for group in _groups(lines)],
        memory=[_rankings(group, peaks, _differ_by_margin) for group in _groups(lines)] if memory else [],
        crossovers=decided,
        undecided_crossovers=len(crossovers) - len(decided),
        levers=[
            price for price in lever_prices(frame) if price.change.axis not in ("backbone", "resolution")
        ],
        shares=[share for line in lines for share in _encoder_shares(estimates, line)],
        limits=[limit for line in lines if (limit := _limit(estimates, line)) is not None],
        memory_ends=[
            MemoryEnd(line, next((one for one in peaks.get(line.key, [])[::-1] if one.size < oom.size), None))
            for line in lines
            if (oom := line.first_oom) is not None
        ],
        largest=max(every, key=lambda one: one.size, default=None),
        doubts=_doubts(frame, every),
    )


def _groups(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines that differ only in their backbone, or return all in one group if there are none."""
    by_setting: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        by_setting.setdefault(tuple(line.setting.values()), []).append(line)
    groups = [group for group in by_setting.values() if len({line.backbone for line in group}) > 1]
    return groups or [list(lines)]


def _values(
    estimates: Estimates, lines: Sequence[Line], column: str
) -> dict[tuple[str, ...], list[Measured]]:
    """Return each line's measured values of a column by size, by the lines' keys."""
    points = estimates.points(column, "mean")
    return {
        line.key: [
            Measured(line, size, label, Interval(*point))
            for size, label, point in zip(
                line.sizes.tolist(), line.size_labels, points[line.places].tolist(), strict=True
            )
            if math.isfinite(point[0])
        ]
        for line in lines
    }


def _differ(low: Measured, high: Measured) -> bool:
    """Return whether `high` is shown to be more than `low`; not if an interval is unknown."""
    return low.value.high < high.value.low


def _differ_by_margin(low: Measured, high: Measured) -> bool:
    return high.value.value > (1 + MEMORY_MARGIN) * low.value.value


def _rankings(
    group: Sequence[Line],
    values: Mapping[tuple[str, ...], Sequence[Measured]],
    differ: Callable[[Measured, Measured], bool],
) -> list[Ranking]:
    by_size: dict[str, list[Measured]] = {}
    for line in group:
        for one in values[line.key]:
            by_size.setdefault(one.resolution, []).append(one)
    found = []
    for rivals in sorted(by_size.values(), key=lambda own: own[0].size):
        if len(rivals) < min(2, len(group)):
            continue  # the only line that ran there is no result of a comparison
        first, *others = sorted(rivals, key=lambda one: one.value.value)
        worse = [one for one in others if differ(first, one)]
        tied = [one for one in others if one not in worse]
        found.append(Ranking(first, tied, worse[0] if worse else None))
    return found


def _clock(frame: pd.DataFrame) -> str:
    return "gpu" if any_measured(frame, "gpu_vision_s") else "host"


def _encoder_shares(estimates: Estimates, line: Line) -> Iterator[Measured]:
    """Yield the encoder's share of the end-to-end latency at the smallest and largest size of a line.

    Intervals end at 0 and at the whole, however few and scattered the samples are.
    """
    column = f"{_clock(estimates.frame)}_vision_s"
    shares = ratio(line.measured(column), line.measured("end_to_end_s"))
    known = np.flatnonzero(np.isfinite(shares))
    for i in dict.fromkeys(known[[0, -1]].tolist() if known.size else []):
        own = estimates.samples.get(str(line.rows["cell_id"].iloc[i]), {})
        pairs = [[np.array(one.get(c, ())) for c in (column, "end_to_end_s")] for one in repeats_of(own)]
        whole_s = float(line.measured("end_to_end_s")[i])
        # a ratio of means, as in tables, is to first order the mean of these
        each = [
            shares[i] + (vision - shares[i] * whole) / whole_s
            for vision, whole in pairs
            if vision.size and vision.size == whole.size
        ]
        interval = _interval(each) or Interval(float(shares[i]), math.nan, math.nan)
        low, high = np.clip([interval.low, interval.high], 0.0, 1.0).tolist()
        interval = replace(interval, low=low, high=high)
        yield Measured(line, float(line.sizes[i]), line.size_labels[i], interval)


def _interval(repeats: Sequence[Floats]) -> Interval | None:
    """Return the interval of the mean of a cell's values: between its repeats, if there are several."""
    if len(repeats) < 2:
        return mean_interval(repeats[0]) if repeats else None
    mean = mean_of_repeats([float(values.mean()) for values in repeats])
    return Interval(mean.value, *mean_ends(mean))


def _limit(estimates: Estimates, line: Line) -> Limit | None:
    """Return what limits the encoder at the largest size of a line; None if no ceiling is known."""
    clock = _clock(estimates.frame)
    measured = _values(estimates, [line], f"{clock}_vision_s")[line.key]
    if not measured or not (at := measured[-1]).value.value:
        return None
    row = line.rows.iloc[[int(np.flatnonzero(np.isfinite(line.measured(f"{clock}_vision_s")))[-1])]]
    if clock == "gpu":
        busy_known = np.isfinite(numbers(row, "gpu_busy_vision_s")).any()
        launch = float((gpu_waiting if busy_known else host_over_gpu)(row, "vision")[0])
        if launch >= (WAITING if busy_known else LAUNCH_BOUND):
            return Limit(at, "launches", Interval(launch, math.nan, math.nan))
    reached: dict[Bound, Interval] = {}
    ceilings: tuple[tuple[Bound, str, str], ...] = (
        ("arithmetic", "counted_vision_flops", "matmul_ceiling_flops_per_s"),
        ("memory traffic", "counted_vision_bytes", "copy_ceiling_bytes_per_s"),
    )
    for bound, work, ceiling in ceilings:
        least_s = float((numbers(row, work) / numbers(row, ceiling))[0])
        if math.isfinite(least_s):
            took = at.value
            most = least_s / took.low if took.low > 0 else math.nan  # nothing is known of the shortest time
            least = least_s / took.high if took.low > 0 else math.nan
            reached[bound] = Interval(least_s / took.value, least, most)
    if not reached:
        return None
    bound, share = max(reached.items(), key=lambda pair: pair[1].value)
    return Limit(at, bound if share.value >= REACHED else "neither", share)


def _doubts(frame: pd.DataFrame, latencies: Sequence[Measured]) -> Doubts:
    ok = frame[frame["status"] == Status.OK]
    known = [one for one in latencies if one.value.is_known]
    rates = [c for c in ok if str(c).startswith("achieved_") and str(c).endswith("_flops_per_s")]
    ceiling = ABOVE * numbers(ok, "matmul_ceiling_flops_per_s")
    above = np.zeros(len(ok), dtype=bool)
    own_ceiling = ok["llm_precision"].isin(["int8-dynamic", "fp8"]) if "llm_precision" in ok else above
    for rate in rates:
        of_llm = str(rate).split("_")[1] in ("prefill", "decode")
        above |= (numbers(ok, str(rate)) > ceiling) & ~(np.asarray(own_ceiling, dtype=bool) & of_llm)

    def with_any(column: str) -> int:
        return int(ok[column].map(lambda said: bool(said) and said == said).sum()) if column in ok else 0

    return Doubts(
        measured=len(ok),
        failed=int(frame["status"].isin([Status.ERROR, Status.TIMEOUT]).sum()),
        disturbed=with_any("disturbances"),
        warned=with_any("warnings"),
        without_interval=len(latencies) - len(known),
        above_ceiling=int(above.sum()),
        widest=max(
            (one for one in known if one.value.value),
            key=lambda one: (one.value.high - one.value.low) / one.value.value,
            default=None,
        ),
    )
