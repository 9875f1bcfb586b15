"""GPU busy time of each stage, from a separate pass under the profiler.

The profiler slows the host down, so this pass is never timed. For the rest of a stage's GPU latency, the GPU
is idle, mostly waiting for launches: the idle share shows how launch-bound the stage is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass
class BusyTimes:
    """GPU busy time in seconds by stage."""

    busy_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def around(self, stage: str) -> Iterator[None]:
        """Profile the body of the context, which must synchronize with the device before it ends."""
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as records:
            yield
        self.busy_s[stage] = union_length(device_spans(records.events())) * 1e-6

    def known(self) -> dict[str, float]:
        """Return `busy_s`, or nothing if the profiler recorded no work because it lacks permission."""
        return self.busy_s if any(self.busy_s.values()) else {}


def can_read_busy_times(device: torch.device) -> bool:
    """Return whether the profiler records this device's kernels."""
    return device.type == "cuda" and ProfilerActivity.CUDA in torch.profiler.supported_activities()


def device_spans(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Return (start, end) in µs of the GPU work that the profiler recorded.

    Named regions are excluded: compiled code opens some, and they span idle time between their kernels.
    """
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """Return the total length of a union of (start, end) intervals."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
