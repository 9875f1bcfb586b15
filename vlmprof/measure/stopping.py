"""Rules for when to start measuring and when to stop.

fixed      discard a number of iterations, then measure a number of iterations (the paper: 100 + 100)
adaptive   discard until latencies settle, then measure until every watched median is known to within the
           target, or the budget is spent; a warning reports what was not reached
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import FEWEST, MAD_TO_SIGMA, MEDIAN_TO_MEAN_ERROR, median_interval

WINDOW_S = 0.25
"""Duration of a window of warm-up iterations."""
LEAST_WINDOW = 3
"""Fewest iterations in a window."""
SETTLED_SHARE = 0.01
"""Latencies have settled if the medians of neighbouring windows differ by at most this share,"""
SETTLED_ERRORS = 2.0
"""or by at most this many standard errors of their difference."""


class StoppingRule(Protocol):
    """Decides after every measured iteration whether to stop, outside the timed region."""

    def enough(self, samples: CellSamples) -> bool:
        """Return whether these samples are enough to stop."""

    def unmet(self, samples: CellSamples) -> list[str]:
        """Describe the requirements of the rule that the samples do not meet."""


@dataclass(frozen=True)
class FixedCount:
    """Stop after a fixed number of iterations."""

    iterations: int

    def enough(self, samples: CellSamples) -> bool:
        return len(samples["end_to_end_s"]) >= self.iterations

    def unmet(self, samples: CellSamples) -> list[str]:
        return []


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Stop when each watched median's 95 % interval is within ± `target`, or when the budget is spent.

    The intervals are checked at only a few sample counts, each a quarter larger than the last. A rule that
    checks after every sample stops at the first lucky one, so its intervals cover less than 95 %.
    Short iterations run for at least `least_s`: that is cheaper than starting their process, and a handful of
    samples does not show how often outliers occur.
    """

    watched: tuple[str, ...]
    """Columns whose medians must be precise."""
    target: float = 0.01
    budget_s: float = 15.0
    least_s: float = 0.5
    most: int = 1000
    fewest: int = FEWEST
    """Iterations to measure even if they exceed the budget. With fewer than the default, the intervals of
    slow iterations are unknown."""

    def enough(self, samples: CellSamples) -> bool:
        end_to_end_s = samples["end_to_end_s"]
        n, spent_s = len(end_to_end_s), sum(end_to_end_s)
        if n >= self.most or (n >= self.fewest and spent_s >= self.budget_s):
            return True
        return self._looks_at(n) and spent_s >= self.least_s and not self._wide(samples)

    def unmet(self, samples: CellSamples) -> list[str]:
        wide = self._wide(samples)
        if not wide:
            return []
        n, spent_s = len(samples["end_to_end_s"]), sum(samples["end_to_end_s"])
        if n < FEWEST:
            limit = "the limit" if n >= self.most else f"the budget of {self.budget_s:g} s"
            allowed = f"{limit} allowed {n} iterations, which took {spent_s:.3g} s"
            return [f"intervals of medians unknown: {allowed}"]
        reached = ", ".join(
            f"{name} ±{width:.1%}" if math.isfinite(width) else f"{name} unknown"
            for name, width in wide.items()
        )
        return [f"medians not within ±{self.target:.1%} after {n} iterations in {spent_s:.3g} s: {reached}"]

    def _wide(self, samples: CellSamples) -> dict[str, float]:
        wide = {}
        for name in self.watched:
            interval = median_interval(samples[name])
            width = math.inf if interval is None else interval.relative_half_width
            if width > self.target:
                wide[name] = width
        return wide

    def _looks_at(self, n: int) -> bool:
        count = FEWEST
        while count < n:
            count += max(count // 4, 2)
        return count == n


@dataclass(frozen=True)
class Settling:
    """Warm up until latencies settle: the last iterations no longer differ from the ones before.

    The medians of two neighbouring windows of end-to-end latencies may differ by 1 % or by what their scatter
    explains. A window lasts a quarter of a second, or a quarter of the budget if that is shorter, and has at
    least three iterations and at most half of `most`. The first iteration, which compiles and tunes, is in
    neither window and does not count towards the budget.
    """

    budget_s: float = 5.0
    most: int = 500

    def enough(self, end_to_end_s: Sequence[float]) -> bool:
        """Return whether to start measuring after these discarded iterations."""
        n, spent_s = len(end_to_end_s), sum(end_to_end_s[1:])
        if n < 2:
            return False
        return spent_s >= self.budget_s or n >= self.most or self.settled(end_to_end_s)

    def settled(self, end_to_end_s: Sequence[float]) -> bool:
        """Return whether the last two windows agree."""
        values = np.asarray(end_to_end_s[1:], dtype=np.float64)
        if values.size < 2:
            return False
        window_s, iteration_s = min(WINDOW_S, self.budget_s / 4), max(float(np.median(values)), 1e-4)
        # two windows have to fit into `most`, however short the iterations
        window = max(LEAST_WINDOW, min(math.ceil(window_s / iteration_s), (self.most - 1) // 2))
        if values.size < 2 * window:
            return False
        last = values[-2 * window :]
        before, after = float(np.median(last[:window])), float(np.median(last[window:]))
        # differences between neighbours show the scatter without the trend
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(np.diff(last)))) / math.sqrt(2)
        error = MEDIAN_TO_MEAN_ERROR * scatter * math.sqrt(2 / window)
        return abs(after - before) <= max(SETTLED_SHARE * before, SETTLED_ERRORS * error)
