"""Execution of kernel commands in child processes. Every attempt has an outcome, however its process ends.

    process 1   attempt 0 ok   attempt 1 ok   attempt 2 crashes
    process 2                                                  attempt 3 ok   attempt 4 hangs, stopped

A process is replaced if it dies or reports that its device no longer works. A process that hangs is not,
because later attempts would likely hang too, and waiting for each would take too long.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmprof.environment import host_facts
from vlmprof.errors import UserError
from vlmprof.execution import processes, starting
from vlmprof.execution.endings import how_it_ended
from vlmprof.measure import oom
from vlmprof.measure.telemetry import GpuReading, nvml_probe
from vlmprof.records import Status

if TYPE_CHECKING:
    from vlmprof.kernels.tools.bench_ops import Ceilings

WORKER = "vlmprof.execution.kernel_worker"
PRELOAD = "vlmprof.execution.preload_kernels"

MOST_REPLACED = 3
"""How often the process of an operation is replaced before its remaining attempts are skipped."""

SHORTEST_CALL_S = 60.0
"""Shortest time limit for calls other than attempts, such as querying the device or its ceilings."""


@dataclass(frozen=True)
class BenchJob:
    """The rows of one operation."""

    op: str
    model: str
    resolutions: tuple[int, ...]
    levels: tuple[int, ...]
    dtypes: tuple[str, ...]
    backends: tuple[str, ...]
    baselines: tuple[str, ...]
    """Other implementations of `ss2d` to time."""
    public: Path | None
    seconds: float
    ceilings: Mapping[str, Ceilings]
    """Ceilings by dtype, where they could be measured."""


@dataclass(frozen=True)
class EncoderJob:
    """The modes of one encoder at one resolution."""

    backbone: str
    resolution: int
    dtype: str
    levels: str
    modes: tuple[str, ...]
    public: Path | None
    seconds: float


@dataclass(frozen=True)
class TuneJob:
    """The operation to tune, `ss2d` or `linear`, and the shapes to tune it for."""

    op: str
    model: str
    dtype: str
    resolutions: tuple[int, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True)
class Begun:
    """The start of an attempt in a process."""

    labels: Mapping[str, Any]
    is_last: bool


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt."""

    labels: Mapping[str, Any]
    """The attempt: operation, case or shape, dtype, backend or mode."""
    status: Status
    message: str = ""
    kind: str = ""
    """The type of the exception, if any."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    gpu_clock_mean_mhz: float | None = None
    """Mean SM clock during the attempt, if the driver reports it."""
    gpu_memory_clock_mean_mhz: float | None = None
    gpu_throttled: str | None = None
    """Reasons for throttling during the attempt; empty if there was none."""

    def clocks(self) -> dict[str, Any]:
        """Return the clock columns."""
        return {
            name: getattr(self, name)
            for name in ("gpu_clock_mean_mhz", "gpu_memory_clock_mean_mhz", "gpu_throttled")
        }


@dataclass(frozen=True)
class KernelRun:
    """A device, and the settings for running attempts on it."""

    device: str
    environment: Mapping[str, Any]
    """The machine columns of every row: names, versions, commit."""
    backends: tuple[str, ...]
    why_not_triton: str | None
    operations: tuple[str, ...]
    models: tuple[str, ...]
    isolate: bool
    item_timeout_s: float | None
    device_uuid: str | None = None

    def attempt_all(
        self,
        target: str,
        args: tuple[Any, ...],
        about: Mapping[str, Any],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Run a generator of `kernel_worker` to its end, in as many processes as needed.

        `about` are the labels for outcomes that belong to no single attempt.
        """
        watch = _Clocks(self.device_uuid, about)
        if not self.isolate:
            messages = _function(target)(self.device, *args, 0)
            ended = processes.drained(messages, lambda message: watch.take(message, on_outcome))
            if not ended and not watch.is_last:
                on_outcome(Outcome(about, Status.SKIPPED, "not run, because the device was lost"))
            return
        replaced, begun = 0, -1
        while (fate := self._one_process(target, args, watch, on_outcome)) is not None:
            replaced += 1
            if watch.is_last:
                return
            if fate is not Status.TIMEOUT and replaced <= MOST_REPLACED and watch.begun > begun:
                begun = watch.begun
                continue
            why = "an attempt hung" if fate is Status.TIMEOUT else f"{replaced} processes were lost"
            on_outcome(Outcome(about, Status.SKIPPED, f"remaining attempts not run, because {why}"))
            return

    def _one_process(
        self, target: str, args: tuple[Any, ...], watch: _Clocks, on_outcome: Callable[[Outcome], None]
    ) -> Status | None:
        """Run attempts in one process; return how it was lost, or None if all attempts ended."""
        kills_before = oom.system_oom_kills()
        watch.rest()
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            ended = processes.call_in_process(
                f"{WORKER}:{target}",
                (self.device, *args, watch.begun),
                log=log,
                item_timeout_s=self.item_timeout_s,
                on_poll=watch.poll,
                on_item=lambda message: watch.take(message, on_outcome),
            )
            _show(log)
        if ended.user_error:
            raise UserError(ended.user_error)
        if ended.value is True:
            return None
        if ended.value is False:  # it has already reported what broke its device
            return Status.ERROR
        status, message = how_it_ended(ended, "", kills_before, self.item_timeout_s)
        on_outcome(watch.seen(Outcome(watch.labels, status, message)))
        return status

    def call(self, target: str, *args: Any) -> Any:
        """Call a function of `kernel_worker`. Passes on its `UserError`; other failures are RuntimeErrors."""
        return _call(target, args, self.isolate, self.item_timeout_s)


def open_run(
    device: str | None, backends: tuple[str, ...], isolate: bool, item_timeout_s: float | None
) -> KernelRun:
    """Query the device, in a child process if `isolate`. Raises `UserError` if it cannot be used."""
    if isolate:
        starting.start_fork_server(PRELOAD)
    try:
        found = _call("facts", (device, backends), isolate, item_timeout_s)
    except RuntimeError as error:
        raise UserError(f"device {device or 'auto'!r} cannot be used: {error}") from None
    host = host_facts()
    drivers = [gpu["driver"] for gpu in host["gpus"]]  # the same for all GPUs of a machine
    environment = {
        "device_name": found["device_name"],
        "driver": drivers[0] if drivers and found["device_uuid"] else None,
        "cuda": found["cuda_version"],
        "torch": host["packages"]["torch"],
        "triton": host["packages"]["triton"],
        "python": host["python"],
        "vlmprof": host["vlmprof"],
        "commit": host["commit"],
    }
    return KernelRun(
        found["device"], environment, tuple(found["backends"]), found["why_not_triton"],
        tuple(found["operations"]), tuple(found["models"]), isolate, item_timeout_s, found["device_uuid"],
    )  # fmt: skip


def _call(target: str, args: tuple[Any, ...], isolate: bool, timeout_s: float | None) -> Any:
    if not isolate:
        return _function(target)(*args)
    kills_before = oom.system_oom_kills()
    timeout_s = None if timeout_s is None else max(timeout_s, SHORTEST_CALL_S)
    ended = processes.call_in_process(f"{WORKER}:{target}", args, timeout_s=timeout_s)
    if ended.user_error:
        raise UserError(ended.user_error)
    if ended.error or ended.timed_out or ended.exit_code is not None:
        raise RuntimeError(how_it_ended(ended, "", kills_before, timeout_s)[1])
    return ended.value


def _function(target: str) -> Any:
    return getattr(importlib.import_module(WORKER), target)


def _show(log: Path) -> None:
    """Forward what a process printed, such as warnings, to stderr."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if text:
        sys.stderr.write(text)
        sys.stderr.flush()


class _Clocks:
    """Reads the GPU's clocks during the attempts of one operation."""

    def __init__(self, device_uuid: str | None, about: Mapping[str, Any]) -> None:
        self._read = nvml_probe(device_uuid)
        self._readings: list[GpuReading] = []
        self._about = about
        self.begun = 0
        self.is_last = False
        self.labels = about
        """Labels of the running attempt, or of the operation between two attempts."""

    def take(self, message: Begun | Outcome, on_outcome: Callable[[Outcome], None]) -> None:
        if isinstance(message, Begun):
            self.begun += 1
            self.is_last, self.labels, self._readings = message.is_last, message.labels, []
            return
        self.poll(0)
        on_outcome(self.seen(message))
        self.rest()

    def rest(self) -> None:
        """Mark that no attempt is running."""
        self.labels, self._readings = self._about, []

    def poll(self, pid: int) -> None:
        reading = self._read(pid) if self._read is not None else None
        if reading is not None:
            self._readings.append(reading)

    def seen(self, outcome: Outcome) -> Outcome:
        readings = self._readings
        if not readings:
            return outcome
        memory = [r.memory_clock_mhz for r in readings if r.memory_clock_mhz is not None]
        return replace(
            outcome,
            gpu_clock_mean_mhz=sum(r.clock_mhz for r in readings) / len(readings),
            gpu_memory_clock_mean_mhz=sum(memory) / len(memory) if memory else None,
            gpu_throttled=", ".join(sorted({reason for r in readings for reason in r.throttled})),
        )
