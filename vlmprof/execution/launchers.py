"""Where cells run: here, one after another or one per device; for a cluster see `ray_launcher`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from vlmprof.execution.cell import measure_cell
from vlmprof.execution.processes import POLL_S
from vlmprof.execution.progress import Progress
from vlmprof.plan import Cell
from vlmprof.records import Row
from vlmprof.settings import Machine, Settings
from vlmprof.store import Samples


@dataclass(frozen=True)
class Job:
    """A cell to run with its settings, and the file for what its process prints."""

    cell: Cell
    settings: Settings
    log: Path


@dataclass(frozen=True)
class Finished:
    """A job that has ended, always with a row."""

    job: Job
    row: Row
    samples: Samples


class Launcher(Protocol):
    """Runs jobs, each on a device of its own. Leaving the context ends whatever still runs."""

    def __enter__(self) -> Launcher: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def has_room(self) -> bool:
        """Whether another job can start now."""

    def start(self, job: Job) -> None:
        """Start a job; call it only when there is room."""

    def wait(self) -> Finished:
        """The next job to end, waiting for it."""


class LocalLauncher:
    """This machine's devices, one cell at a time on each."""

    def __init__(self, machines: Sequence[Machine], progress: Progress) -> None:
        """`machines` is what `describe_machine` says of each device."""
        self._progress = progress
        self._free: queue.SimpleQueue[Machine] = queue.SimpleQueue()
        for machine in machines:
            self._free.put(machine)
        self._finished: queue.SimpleQueue[Future[Finished]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(len(machines), thread_name_prefix="cell")
        self._stop = threading.Event()

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True)

    def has_room(self) -> bool:
        return not self._free.empty()

    def start(self, job: Job) -> None:
        machine = self._free.get_nowait()
        self._threads.submit(self._run, job, machine).add_done_callback(self._finished.put)

    def wait(self) -> Finished:
        while True:
            # a wait without an end would not be interrupted by Ctrl-C on every system
            try:
                return self._finished.get(timeout=POLL_S).result()
            except queue.Empty:
                continue

    def _run(self, job: Job, machine: Machine) -> Finished:
        try:
            settings = replace(job.settings, device=machine.device)
            row, samples = measure_cell(
                job.cell,
                settings,
                machine,
                job.log,
                lambda reading: self._progress.tick(job.cell, reading),
                self._stop,
            )
        finally:
            self._free.put(machine)
        return Finished(job, row, samples)
