"""Telemetry against a fake GPU, and against a real load on this machine's CPU."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.helpers.checks import known
from vlmprof.measure.telemetry import GpuReading, MachineState, Telemetry, nvml_probe

CALM = GpuReading(clock_mhz=1980, temperature_c=50, power_w=400, energy_j=0, throttled=(), other_processes=0)


def played(readings: Sequence[GpuReading], seconds_apart: float = 0.5) -> MachineState:
    """The summary of a Telemetry that saw these readings at iterations 0, 10, 20, …"""
    queue, now = list(readings), [0.0]
    telemetry = Telemetry(read_gpu=lambda pid: queue.pop(0), clock_s=lambda: now[0])
    for n in range(len(readings)):
        telemetry.poll(os.getpid(), 10 * n)
        now[0] += seconds_apart
    return telemetry.summary()


def change(reading: GpuReading, **values: Any) -> GpuReading:
    return replace(reading, **values)


def test_energy_is_counted_over_the_whole_window() -> None:
    machine = played([change(CALM, energy_j=100.0 * n) for n in range(5)])
    assert machine.energy_per_iteration_j == pytest.approx(10.0)
    assert machine.gpu_power_mean_w == 400
    assert not [w for w in machine.warnings if "GPU" in w]


def test_a_window_too_short_for_the_counter_has_no_energy() -> None:
    assert played([change(CALM, energy_j=float(n)) for n in range(4)], 0.1).energy_per_iteration_j is None


@pytest.mark.parametrize("counter_j", [(0.0, 0.0, 0.0), (900.0, 950.0, 20.0)])
def test_a_counter_that_stands_still_or_was_reset_has_no_energy(counter_j: Sequence[float]) -> None:
    machine = played([change(CALM, energy_j=joules) for joules in counter_j], 1.0)
    assert machine.energy_per_iteration_j is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"throttled": ("power cap",)}, "throttled (power cap) 25% of the time"),
        ({"clock_mhz": 1500}, "clock varied between 1500 and 1980 MHz"),
        ({"other_processes": 1}, "another process was using the GPU"),
    ],
)
def test_what_would_spoil_a_number_is_flagged(changes: dict[str, object], words: str) -> None:
    machine = played([CALM, CALM, change(CALM, **changes), CALM])
    assert words in " ".join(machine.warnings)


def test_one_poll_says_nothing() -> None:
    assert played([CALM]).gpu_clock_mean_mhz is None


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.slow
def test_another_process_that_loads_the_machine_is_seen() -> None:
    telemetry = Telemetry()
    telemetry.poll(os.getpid(), 0)
    process = multiprocessing.get_context("fork").Process(target=_burn, args=(1.6,))
    process.start()
    for n in range(6):
        time.sleep(0.25)
        telemetry.poll(os.getpid(), n)
    process.kill()
    machine = telemetry.summary()
    assert known(machine.other_load_cores) > 0.4
    assert "other processes took" in machine.warnings[0]


@pytest.mark.slow
def test_the_measured_process_itself_is_not_another() -> None:
    """Two look at the same seconds, and differ by the time of the process that each takes for its own."""
    knowing, ignoring = Telemetry(), Telemetry()
    process = multiprocessing.get_context("fork").Process(target=_burn, args=(60,))
    process.start()
    burner, here = psutil.Process(process.pid), psutil.Process()
    before, begun = [sum(p.cpu_times()[:2]) for p in (burner, here)], time.monotonic()
    for n in range(5):
        time.sleep(0.3 if n else 0)
        knowing.poll(known(process.pid), n)
        ignoring.poll(os.getpid(), n)
    elapsed = time.monotonic() - begun
    after = [sum(p.cpu_times()[:2]) for p in (burner, here)]
    process.kill()
    burned, own = ((end - start) / elapsed for start, end in zip(before, after, strict=True))
    assert burned > 0.1
    seen = known(ignoring.summary().other_load_cores) - known(knowing.summary().other_load_cores)
    assert seen == pytest.approx(burned - own, abs=0.1)


def test_without_a_gpu_there_is_no_probe() -> None:
    assert nvml_probe(None) is None
    assert nvml_probe("GPU-00000000-0000-0000-0000-000000000000") is None


class Driver(ModuleType):
    """In the place of pynvml: a GPU that tells everything but what `lacks` names."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, lacks: Sequence[str] = ()) -> None:
        super().__init__("pynvml")
        told = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle of {uuid}",
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1980,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x4 | 0x1,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5_000,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=p) for p in (7, 8)],
            "nvmlDeviceGetTemperature": lambda handle, kind: 41,
            "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
        }
        for name, function in told.items():
            if name not in lacks:
                setattr(self, name, function)


def test_the_drivers_units_become_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert known(nvml_probe("GPU-1"))(7) == GpuReading(1980.0, 41.0, 312.5, 5.0, ("power cap",), 1)


def test_the_memorys_clock_is_read_beside_the_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    memory = object()
    vars(driver).update(
        NVML_CLOCK_MEM=memory,
        nvmlDeviceGetClockInfo=lambda handle, kind: 3201 if kind is memory else 1980,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    reading = known(known(nvml_probe("GPU-1"))(7))
    assert (reading.clock_mhz, reading.memory_clock_mhz) == (1980.0, 3201.0)


def test_what_a_driver_does_not_tell_is_unknown_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = ("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption")
    monkeypatch.setitem(sys.modules, "pynvml", Driver(lacks))
    reading = known(known(nvml_probe("GPU-1"))(7))
    assert (reading.temperature_c, reading.power_w, reading.energy_j) == (None, None, None)
    telemetry = Telemetry(read_gpu=lambda pid: reading)
    for iteration in (0, 50):
        telemetry.poll(os.getpid(), iteration)
    seen = telemetry.summary()
    assert (seen.gpu_clock_mean_mhz, seen.gpu_temperature_max_c, seen.gpu_power_mean_w) == (
        1980.0,
        None,
        None,
    )
