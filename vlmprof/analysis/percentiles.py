"""High percentiles, for sample counts that support them."""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENTILES = (90, 95, 99)
CONFIDENCE = 0.95


def supported_percentile(samples: Sequence[float], percent: int) -> float | None:
    """Return the `percent`-th percentile of `samples` (the order statistic of rank ⌈n·percent/100⌉), or None.

    The samples must contain an upper bound for it: the largest of n samples exceeds the q-quantile with
    probability 1 - qⁿ, which must be at least 95 % (David & Nagaraja, Order Statistics, 2003, section 7.1).
    p90 needs 29 samples, p95 needs 59 and p99 needs 299.
    """
    n, q = len(samples), percent / 100
    if 1 - q**n < CONFIDENCE:
        return None
    return float(sorted(samples)[math.ceil(n * q) - 1])
