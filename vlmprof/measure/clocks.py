"""The device clock: a pair of events per stage, if the device has events."""

from __future__ import annotations

import torch

UNMEASURABLE = {"mps": "torch's events on Apple's GPU may hang, and its peak memory is not counted"}
"""Types of accelerators that cannot be measured, with the reason (pytorch/pytorch#196395 and #167447)."""


def make_current(device: torch.device) -> None:
    """Make `device` the current device of this process, for events, streams and synchronization."""
    if device.type != "cpu" and device.index is not None:
        torch.accelerator.set_device_index(device.index)


class DeviceClock:
    """The device operations of the measuring loop; `i` is the index of a stage in the iteration.

    This one has no clock: a CPU works synchronously, and the host's clock is enough.
    """

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work."""

    def start(self, i: int) -> None:
        """Mark the start of stage `i` in the device's queue, without waiting."""

    def stop(self, i: int) -> None:
        """Mark the end of stage `i` in the device's queue, without waiting."""

    def elapsed_s(self, i: int) -> float | None:
        """Return the seconds between both marks of stage `i`, after `synchronize`; None without a clock."""
        return None


class EventClock(DeviceClock):
    """Timing events of an accelerator, created once and recorded in every iteration."""

    def __init__(self, device: torch.device, stages: int) -> None:
        self._device = device
        self._pairs = [
            (torch.Event(device=device, enable_timing=True), torch.Event(device=device, enable_timing=True))
            for _ in range(stages)
        ]

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self._device)

    def start(self, i: int) -> None:
        self._pairs[i][0].record()

    def stop(self, i: int) -> None:
        self._pairs[i][1].record()

    def elapsed_s(self, i: int) -> float | None:
        start, stop = self._pairs[i]
        return start.elapsed_time(stop) * 1e-3


def device_clock(device: torch.device, stages: int) -> DeviceClock:
    """Return a device's clock for iterations of `stages` stages. Raises ValueError if it has none."""
    if device.type in UNMEASURABLE:
        raise ValueError(f"device {str(device)!r} cannot be measured: {UNMEASURABLE[device.type]}")
    return DeviceClock() if device.type == "cpu" else EventClock(device, stages)
