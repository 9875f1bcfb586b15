"""Time with a kernel running in each stage, from the profiler's records, in a pass of its own.

The profiler slows the host down, so its pass is never timed. The rest of a stage's GPU latency is waiting,
mostly for the host to launch: its share says how launch-bound the stage is.
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
    """Seconds of GPU work by stage."""

    busy_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def around(self, stage: str) -> Iterator[None]:
        """Profile what runs inside, which must have ended on the device too when the context is left."""
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as records:
            yield
        self.busy_s[stage] = union_length(device_spans(records.events())) * 1e-6

    def known(self) -> dict[str, float]:
        """`busy_s`, or nothing where the profiler recorded no work at all: it lacked the permission."""
        return self.busy_s if any(self.busy_s.values()) else {}


def can_read_busy_times(device: torch.device) -> bool:
    """Whether the profiler records this device's kernels."""
    return device.type == "cuda" and ProfilerActivity.CUDA in torch.profiler.supported_activities()


def device_spans(events: Iterable[Any]) -> list[tuple[float, float]]:
    """(start, end) in µs of the profiler's records of work on the GPU.

    Named regions are recorded there too, from their first kernel to their last, waiting included:
    compiled code opens some.
    """
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """The length that intervals (start, end) cover together; overlaps count once."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
