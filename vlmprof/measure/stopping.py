"""When to begin measuring and when to stop.

fixed      a number of discarded iterations, then a number of measured ones (the paper's protocol: 100 + 100)
adaptive   discard until settled, then measure until every watched median is known to within the
           target, or the budget is spent; a warning says what was not reached
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlmprof.measure.statistics import FEWEST, MAD_TO_SIGMA, MEDIAN_TO_MEAN_ERROR, median_interval

Raw = Mapping[str, Sequence[float]]
"""Latencies in seconds by column, such as `samples.Samples`."""

WINDOW_S = 0.25
"""Length of a window of warm-up iterations that is compared with the one before."""
LEAST_WINDOW = 3
"""Iterations of a window at least."""
SETTLED_SHARE = 0.01
"""Neighbouring windows that differ by no more than this share have settled, whatever their scatter."""
SETTLED_ERRORS = 2.0
"""Or by no more than this many standard errors of their difference."""


class StoppingRule(Protocol):
    """Decides after every measured iteration, outside the clocks."""

    def enough(self, samples: Raw) -> bool:
        """Whether these samples are enough to stop."""

    def unmet(self, samples: Raw) -> list[str]:
        """What the rule asked for and the samples do not give, in words."""


@dataclass(frozen=True)
class FixedCount:
    """A fixed number of iterations, whatever they show."""

    iterations: int

    def enough(self, samples: Raw) -> bool:
        return len(samples["end_to_end_s"]) >= self.iterations

    def unmet(self, samples: Raw) -> list[str]:
        return []


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Until each watched median's 95 % interval is within ± `target` of it, or the budget ends.

    The intervals are looked at a few times only, at counts that grow by a quarter: a rule that looks
    after every sample stops at the first lucky one, and its intervals would cover less than they say.
    Short iterations go on for `least_s` all the same: that costs less than starting their process did, and
    a handful of samples shows nothing of how often an outlier comes.
    """

    watched: tuple[str, ...]
    """Columns whose medians matter."""
    target: float = 0.01
    budget_s: float = 15.0
    least_s: float = 0.5
    most: int = 1000

    def enough(self, samples: Raw) -> bool:
        end_to_end_s = samples["end_to_end_s"]
        n, spent_s = len(end_to_end_s), sum(end_to_end_s)
        # the budget may cut the samples down to the fewest that have an interval, but no further
        if n >= self.most or (n >= FEWEST and spent_s >= self.budget_s):
            return True
        return self._looks_at(n) and spent_s >= self.least_s and not self._wide(samples)

    def unmet(self, samples: Raw) -> list[str]:
        wide = self._wide(samples)
        if not wide:
            return []
        n, spent_s = len(samples["end_to_end_s"]), sum(samples["end_to_end_s"])
        reached = ", ".join(
            f"{name} ±{width:.1%}" if math.isfinite(width) else f"{name} unknown"
            for name, width in wide.items()
        )
        return [f"medians not within ±{self.target:.1%} after {n} iterations in {spent_s:.3g} s: {reached}"]

    def _wide(self, samples: Raw) -> dict[str, float]:
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
    """Whether a warming-up pipeline has settled: its last iterations are no different from those before.

    Two neighbouring windows of end-to-end latencies are compared by their medians; they may differ by
    1 % or by what their scatter explains. A window is a quarter of a second of iterations, or of the budget
    where that is shorter, and at least three. The first iteration compiles and tunes: it is in neither
    window and does not spend the budget.
    """

    budget_s: float = 5.0
    most: int = 500

    def enough(self, end_to_end_s: Sequence[float]) -> bool:
        """Whether to begin measuring after these discarded iterations."""
        n, spent_s = len(end_to_end_s), sum(end_to_end_s[1:])
        if n < 2:
            return False
        return spent_s >= self.budget_s or n >= self.most or self.settled(end_to_end_s)

    def settled(self, end_to_end_s: Sequence[float]) -> bool:
        """Whether the last two windows agree."""
        values = np.asarray(end_to_end_s[1:], dtype=np.float64)
        if values.size < 2:
            return False
        window_s, iteration_s = min(WINDOW_S, self.budget_s / 4), max(float(np.median(values)), 1e-4)
        window = max(LEAST_WINDOW, math.ceil(window_s / iteration_s))
        if values.size < 2 * window:
            return False
        last = values[-2 * window :]
        before, after = float(np.median(last[:window])), float(np.median(last[window:]))
        # neighbours' differences show the scatter without the trend that is looked for
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(np.diff(last)))) / math.sqrt(2)
        error = MEDIAN_TO_MEAN_ERROR * scatter * math.sqrt(2 / window)
        return abs(after - before) <= max(SETTLED_SHARE * before, SETTLED_ERRORS * error)
