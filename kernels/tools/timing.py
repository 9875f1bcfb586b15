"""The duration of single calls: from device events on a GPU, from the host clock on a CPU.

On a GPU, the cache is flushed before each call. No timed call compiles, tunes or makes first allocations.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

FEWEST_SAMPLES = 5
WARM_UP_CALLS = 5
LONGEST_WARM_UP_S = 5.0
"""Longest warm-up on a GPU; long calls need fewer."""
FLUSHED_BYTES = 256 << 20
"""Bytes written before each timed call on a GPU: more than any last-level cache."""
SHORT_CALL_S = 0.05
QUEUED_CALLS = 10
"""Short calls that are queued together, to keep the host ahead of the GPU."""


def samples_of(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Measure single calls for about `seconds` after a warm-up; return at least 5 durations in seconds."""
    if device.type == "cuda":
        return _samples_on_gpu(call, device, seconds)
    call()
    durations: list[float] = []
    while sum(durations) < seconds or len(durations) < FEWEST_SAMPLES:
        start = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - start) * 1e-9)
    return durations


def _samples_on_gpu(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    queued = QUEUED_CALLS if _warm_up_s(call) < SHORT_CALL_S else 1
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device=device)
    durations: list[float] = []
    while sum(durations) < seconds or len(durations) < FEWEST_SAMPLES:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(queued)]
        for before, after in events:
            flushed.zero_()
            before.record()
            call()
            after.record()
        torch.cuda.synchronize()
        durations += [before.elapsed_time(after) * 1e-3 for before, after in events]
    return durations


def _warm_up_s(call: Callable[[], object]) -> float:
    """Return the host time of the last of a few calls."""
    begun_s = before_s = time.perf_counter()
    for _ in range(WARM_UP_CALLS):
        before_s = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if time.perf_counter() - begun_s > LONGEST_WARM_UP_S:
            break
    return time.perf_counter() - before_s
