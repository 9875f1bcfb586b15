"""The state of the machine during a measurement, polled from outside the measured process.

Polling a few times a second from there affects neither the measured stream nor its interpreter lock. The
energy counter is updated every 20–100 ms, so it is read over the whole measuring window and divided by the
iterations in it, never per iteration.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil

from vlmprof.measure.samples import mean

SHORTEST_WINDOW_S = 1.0
"""Shortest window for energy: below, the counter's resolution dominates."""

BUSY_CORES = 0.15
"""CPU use of other processes, in cores, above which a cell is flagged."""

THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}
"""NVML's clock event reasons for throttling (nvml.h); idling is not among them."""


@dataclass(frozen=True)
class MachineState:
    """The state of the machine while a pipeline was measured. None means not readable on this system."""

    gpu_clock_mean_mhz: float | None = None
    gpu_clock_min_mhz: float | None = None
    gpu_clock_max_mhz: float | None = None
    gpu_temperature_max_c: float | None = None
    gpu_power_mean_w: float | None = None
    energy_per_iteration_j: float | None = None
    cpu_clock_mean_mhz: float | None = None
    other_load_cores: float | None = None
    """CPU time of other processes per second of measurement."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuReading:
    """One reading of the GPU. None means not reported by the driver."""

    clock_mhz: float
    temperature_c: float | None
    power_w: float | None
    energy_j: float | None
    throttled: tuple[str, ...]
    other_processes: int
    memory_clock_mhz: float | None = None


class GpuProbe(Protocol):
    """Reads the GPU; `pid` is the measured process."""

    def __call__(self, pid: int) -> GpuReading | None: ...


@dataclass
class Telemetry:
    """Collects readings while a pipeline is measured; call `poll` a few times a second."""

    read_gpu: GpuProbe | None = None
    clock_s: Callable[[], float] = time.monotonic
    _gpu: list[tuple[int, GpuReading]] = field(default_factory=list)
    _times_s: list[float] = field(default_factory=list)
    _busy_s: list[float] = field(default_factory=list)
    _own_s: list[float] = field(default_factory=list)
    _cpu_mhz: list[float] = field(default_factory=list)

    def poll(self, pid: int, iteration: int) -> None:
        """Read the machine's state while process `pid` runs iteration number `iteration`."""
        try:
            own = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return
        self._times_s.append(self.clock_s())
        self._busy_s.append(_busy_s())
        self._own_s.append(own.user + own.system)
        if (current_mhz := _cpu_mhz()) is not None:
            self._cpu_mhz.append(current_mhz)
        if self.read_gpu is not None:
            reading = self.read_gpu(pid)
            if reading is not None:
                self._gpu.append((iteration, reading))

    def summary(self) -> MachineState:
        """Summarize the readings; all None with fewer than two."""
        if len(self._times_s) < 2:
            return MachineState()
        window_s = self._times_s[-1] - self._times_s[0]
        other = self._busy_s[-1] - self._busy_s[0] - (self._own_s[-1] - self._own_s[0])
        # the counters have a resolution of 10 ms
        other_cores = max(0.0, round(other / window_s, 3)) if window_s > 0 else None
        warnings = []
        if other_cores is not None and other_cores > BUSY_CORES and window_s >= SHORTEST_WINDOW_S:
            warnings.append(f"other processes took {other_cores:.1f} of {os.cpu_count()} cores")
        readings = [reading for _, reading in self._gpu]
        if not readings:
            return MachineState(
                cpu_clock_mean_mhz=mean(self._cpu_mhz),
                other_load_cores=other_cores,
                warnings=tuple(warnings),
            )
        clocks = [reading.clock_mhz for reading in readings]
        return MachineState(
            gpu_clock_mean_mhz=mean(clocks),
            gpu_clock_min_mhz=min(clocks),
            gpu_clock_max_mhz=max(clocks),
            gpu_temperature_max_c=max(_known(reading.temperature_c for reading in readings), default=None),
            gpu_power_mean_w=mean(_known(reading.power_w for reading in readings)),
            energy_per_iteration_j=self._energy_per_iteration_j(window_s),
            cpu_clock_mean_mhz=mean(self._cpu_mhz),
            other_load_cores=other_cores,
            warnings=(*warnings, *_gpu_warnings(readings)),
        )

    def _energy_per_iteration_j(self, window_s: float) -> float | None:
        (first, before), (last, after) = self._gpu[0], self._gpu[-1]
        if before.energy_j is None or after.energy_j is None or last <= first or window_s < SHORTEST_WINDOW_S:
            return None
        spent_j = after.energy_j - before.energy_j
        # a counter that stands still or was reset measures nothing
        return spent_j / (last - first) if spent_j > 0 else None


def _gpu_warnings(readings: list[GpuReading]) -> list[str]:
    warnings = []
    reasons = sorted({reason for reading in readings for reason in reading.throttled})
    if reasons:
        share = sum(bool(reading.throttled) for reading in readings) / len(readings)
        warnings.append(f"the GPU throttled ({', '.join(reasons)}) {share:.0%} of the time")
    low, high = min(r.clock_mhz for r in readings), max(r.clock_mhz for r in readings)
    if low < 0.95 * high:
        warnings.append(f"the GPU clock varied between {low:.0f} and {high:.0f} MHz")
    if any(reading.other_processes for reading in readings):
        warnings.append("another process was using the GPU")
    return warnings


def nvml_probe(uuid: str | None) -> GpuProbe | None:
    """Return a reader of the NVIDIA GPU with this UUID, or None if there is no such GPU or driver."""
    if uuid is None:
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except Exception:  # the driver is optional: any failure means there is none
        return None

    def optional(name: str, *args: Any) -> Any:
        # older bindings or drivers may lack a function
        try:
            return getattr(pynvml, name)(*args)
        except (pynvml.NVMLError, AttributeError):
            return None

    def read(pid: int) -> GpuReading | None:
        clock_mhz = optional("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_SM)
        if clock_mhz is None:
            return None
        reasons = optional("nvmlDeviceGetCurrentClocksEventReasons", handle) or 0
        energy_mj = optional("nvmlDeviceGetTotalEnergyConsumption", handle)
        processes = optional("nvmlDeviceGetComputeRunningProcesses", handle) or []
        # in a container the driver may report another pid for ours, so a single process counts as ours
        others = [p for p in processes if p.pid != pid] if len(processes) > 1 else []
        temperature_c = optional("nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
        memory = getattr(pynvml, "NVML_CLOCK_MEM", None)
        memory_mhz = None if memory is None else optional("nvmlDeviceGetClockInfo", handle, memory)
        power_mw = optional("nvmlDeviceGetPowerUsage", handle)
        return GpuReading(
            clock_mhz=float(clock_mhz),
            temperature_c=None if temperature_c is None else float(temperature_c),
            power_w=None if power_mw is None else power_mw / 1e3,
            energy_j=None if energy_mj is None else energy_mj / 1e3,
            throttled=tuple(words for bit, words in THROTTLING.items() if reasons & bit),
            other_processes=len(others),
            memory_clock_mhz=None if memory_mhz is None else float(memory_mhz),
        )

    return read


def _cpu_mhz() -> float | None:
    """Return the current clock of the processor; None where psutil cannot read it.

    On other systems than Linux, psutil returns a nominal clock, and on some Macs it fails.
    """
    if not sys.platform.startswith("linux"):
        return None
    with suppress(NotImplementedError, AttributeError, OSError):
        frequency = psutil.cpu_freq()
        return float(frequency.current) if frequency and frequency.current else None
    return None


def _busy_s() -> float:
    """Return the CPU seconds used by all processes of this machine so far, excluding waiting."""
    times = psutil.cpu_times()
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    return float(sum(times) - guest - idle)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
