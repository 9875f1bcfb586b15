"""High percentiles of samples, where there are enough of them to say anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENTILES = (90, 95, 99)
CONFIDENCE = 0.95


def supported_percentile(samples: Sequence[float], percent: int) -> float | None:
    """The `percent`-th percentile of `samples` (their order statistic of rank ⌈n·percent/100⌉), or None.

    It is given only where the samples hold an upper bound for it: the largest of n lies above it with
    probability 1 - qⁿ, which has to be 95 % (David & Nagaraja, Order Statistics, 2003, section 7.1). So p90
    takes 29 samples, p95 59 and p99 299.
    """
    n, q = len(samples), percent / 100
    if 1 - q**n < CONFIDENCE:
        return None
    return float(sorted(samples)[math.ceil(n * q) - 1])
