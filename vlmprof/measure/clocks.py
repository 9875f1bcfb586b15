"""The device's clock: a pair of events per stage, where the device has events."""

from __future__ import annotations

from typing import Protocol

import torch


def make_current(device: torch.device) -> None:
    """Make `device` the one whose events, streams and waits this process uses."""
    if device.type != "cpu" and device.index is not None:
        torch.accelerator.set_device_index(device.index)


class DeviceClock(Protocol):
    """What the measuring loop needs of a device; `i` is the number of a stage within the iteration."""

    def synchronize(self) -> None:
        """Wait until the device has done all that was given to it."""

    def start(self, i: int) -> None:
        """Mark the beginning of stage `i` in the device's queue; does not wait."""

    def stop(self, i: int) -> None:
        """Mark the end of stage `i` in the device's queue; does not wait."""

    def elapsed_s(self, i: int) -> float | None:
        """Seconds between the two marks of stage `i`, after `synchronize`; None without such a clock."""


class EventClock:
    """An accelerator's timing events, made once and recorded anew in every iteration."""

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


class NoDeviceClock:
    """A CPU works synchronously and has no clock beside the host's."""

    def synchronize(self) -> None:
        pass

    def start(self, i: int) -> None:
        pass

    def stop(self, i: int) -> None:
        pass

    def elapsed_s(self, i: int) -> float | None:
        return None


def device_clock(device: torch.device, stages: int) -> DeviceClock:
    """The clock of a device for iterations of `stages` stages."""
    return NoDeviceClock() if device.type == "cpu" else EventClock(device, stages)
