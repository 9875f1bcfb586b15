"""The levers of a deployment, one per axis, and what pulling one of them changes.

A lever's price is measured on pairs of cells that differ in exactly one axis. It is the median of their
differences, with the 95 % interval from order statistics over the pairs; of fewer than six pairs, not even
the extremes enclose the median with 95 %, and the range is given instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.costs import memory_needed, time_to_first_token
from vlmprof.analysis.frames import axis_word, clock_of, numbers, ratio, varying_axes
from vlmprof.analysis.intervals import Interval
from vlmprof.fields import resolution_size
from vlmprof.measure.statistics import FEWEST, Floats
from vlmprof.records import STAGES, Status

_ENCODER = ("backbone", "resolution")


@dataclass(frozen=True)
class Change:
    """Another value of one axis, as written in a row."""

    axis: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """The differences of one quantity between the cells of the pairs: after minus before."""

    ends: Interval
    """The median with its 95 % interval, or with the range of fewer than six differences."""
    relative: float | None
    """Median of the differences as a share of the value before; None if that is 0 in every pair."""

    @property
    def median(self) -> float:
        return self.ends.value

    @property
    def is_zero(self) -> bool:
        """Whether nothing changes, not even at the ends."""
        return not any((self.median, self.ends.low, self.ends.high))

    @property
    def shown(self) -> bool:
        """Whether the ends are on one side of 0."""
        return self.ends.low > 0 or self.ends.high < 0


@dataclass(frozen=True)
class LeverPrice:
    """What changing one axis does, all others being equal."""

    change: Change
    pairs: int
    differences: Mapping[str, Difference]
    """By quantity: `ttft_s`, a stage's `vision_s`, `memory_bytes`, `energy_per_image_j`, `visual_tokens`."""

    @property
    def has_interval(self) -> bool:
        """Whether there are enough pairs for a 95 % interval."""
        return self.pairs >= FEWEST


def levers_of(frame: pd.DataFrame) -> list[str]:
    """Return the axes in which the cells of a frame differ, backbone and resolution first."""
    encoder = [axis for axis in _ENCODER if axis in frame and frame[axis].astype(str).nunique() > 1]
    return [*encoder, *varying_axes(frame)]


def changes_between(frame: pd.DataFrame, before: int, after: int, axes: Sequence[str]) -> list[Change]:
    """Return the axes in which two rows, by position, differ."""
    found = [
        Change(axis, *(axis_word(axis, frame[axis].iloc[place]) for place in (before, after)))
        for axis in axes
    ]
    return [change for change in found if change.before != change.after]


def lever_prices(frame: pd.DataFrame) -> list[LeverPrice]:
    """Return the price of every lever of a run, from the `ok` rows of its frame.

    A value is compared with the first of its axis; resolutions and numbers with the next smaller one.
    """
    ok = frame[frame["status"] == Status.OK].reset_index(drop=True)
    axes = levers_of(ok) if len(ok) else []
    quantities = _quantities(ok)
    words = pd.DataFrame({axis: ok[axis].map(partial(axis_word, axis)) for axis in axes})
    found = []
    for axis in axes:
        places = _places(words, axis)
        for before, after in _steps(axis, list(dict.fromkeys(words[axis]))):
            pairs = [(own[before], own[after]) for own in places if before in own and after in own]
            if pairs:
                differences = _differences(quantities, np.array(pairs))
                found.append(LeverPrice(Change(axis, before, after), len(pairs), differences))
    return found


def _quantities(ok: pd.DataFrame) -> dict[str, Floats]:
    clock = clock_of(ok)
    found = {
        "ttft_s": time_to_first_token(ok),
        **{f"{stage}_s": numbers(ok, f"{clock}_{stage}_s") for stage in STAGES},
        "memory_bytes": memory_needed(ok),
        "energy_per_image_j": numbers(ok, "energy_per_image_j"),
        "visual_tokens": numbers(ok, "visual_tokens"),
    }
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _places(words: pd.DataFrame, axis: str) -> list[dict[str, int]]:
    """Return the rows' positions by value of `axis`, for each combination of the other axes."""
    others = [name for name in words if name != axis]
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    keys = zip(*(words[name] for name in others), strict=True) if others else [()] * len(words)
    for i, (key, value) in enumerate(zip(keys, words[axis], strict=True)):
        groups.setdefault(tuple(key), {}).setdefault(str(value), i)
    return list(groups.values())


def _steps(axis: str, values: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of values to compare."""
    if axis == "resolution":
        ordered = sorted(values, key=lambda value: math.prod(resolution_size(value)))
    elif all(value.replace(".", "", 1).isdigit() for value in values):
        ordered = sorted(values, key=float)
    else:
        yield from ((values[0], value) for value in values[1:])
        return
    yield from itertools.pairwise(ordered)


def _differences(quantities: Mapping[str, Floats], pairs: npt.NDArray[np.int_]) -> dict[str, Difference]:
    found = {}
    for name, values in quantities.items():
        before, after = values[pairs[:, 0]], values[pairs[:, 1]]
        known = np.isfinite(before) & np.isfinite(after)
        if known.any():
            gone = after[known] - before[known]
            shares = ratio(gone, before[known])
            finite = shares[np.isfinite(shares)]
            relative = float(np.median(finite)) if finite.size else None
            found[name] = Difference(median_ends(gone), relative)
    return found


def median_ends(values: Floats) -> Interval:
    """Return the median of independent values with its 95 % interval; of fewer than six, with their range."""
    ordered = np.sort(values)
    n = ordered.size
    # the largest rank k such that fewer than k of n values are below the median with at most 2.5 %
    below = itertools.accumulate(math.comb(n, i) for i in range(n + 1))
    rank = max(sum(1 for ways in itertools.takewhile(lambda ways: 40 * ways <= 2**n, below)), 1)
    return Interval(float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[n - rank]))
