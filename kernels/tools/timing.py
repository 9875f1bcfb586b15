"""The duration of single calls: between device events on a GPU, by the host's clock on a CPU.

On a GPU the cache is flushed before each call. No timed call compiles, tunes or allocates for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

FEWEST_SAMPLES = 5
WARM_UP_CALLS = 5
LONGEST_WARM_UP_S = 5.0
"""On a GPU; calls that take long need fewer."""
FLUSHED_BYTES = 256 << 20
"""Written before each timed call on a GPU: more than any last-level cache."""
SHORT_CALL_S = 0.05
QUEUED_CALLS = 10
"""Short calls that are queued together, so that the host is ahead of the GPU."""


def samples_of(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Durations in seconds of single calls after a warm-up: at least 5, for about `seconds`."""
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
    """The host's time for the last of a few calls."""
    begun_s = before_s = time.perf_counter()
    for _ in range(WARM_UP_CALLS):
        before_s = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if time.perf_counter() - begun_s > LONGEST_WARM_UP_S:
            break
    return time.perf_counter() - before_s
