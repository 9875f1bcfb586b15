"""A launcher for this machine's devices, with one cell at a time on each."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from vlmprof.execution.ceilings import Ceilings
from vlmprof.execution.launchers import Finished, Job
from vlmprof.execution.machine import measure_ceilings
from vlmprof.execution.processes import POLL_S, StoppedError
from vlmprof.execution.progress import Progress
from vlmprof.execution.supervisor import measure_cell
from vlmprof.settings import Machine


class LocalLauncher:
    """Runs cells with a thread per device, which waits for the process of its cell."""

    def __init__(self, machines: Sequence[Machine], progress: Progress) -> None:
        """Create a launcher for the devices described by `machines`, from `describe_machine`."""
        self._progress = progress
        self._free = deque(machines)
        self._finished: queue.SimpleQueue[Future[Finished]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(len(machines), thread_name_prefix="cell")
        self._stop = threading.Event()

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(self, *ended: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True)

    def has_room(self) -> bool:
        return bool(self._free)

    def start(self, job: Job) -> None:
        self._submit(job, self._free.popleft(), rest_s=0.0)

    def repeat(self, finished: Finished, rest_s: float) -> None:
        self._free.remove(finished.place)
        self._submit(finished.job, finished.place, rest_s)

    def wait(self) -> Finished:
        while True:
            # on some systems Ctrl-C does not interrupt a wait without a timeout
            try:
                finished = self._finished.get(timeout=POLL_S).result()
            except queue.Empty:
                continue
            # not earlier, so that no other job has started there if this one must be repeated
            self._free.append(finished.place)
            return finished

    def ceilings(self, dtypes: Collection[str]) -> Ceilings:
        reached = measure_ceilings(self._free[0].device, dtypes)
        return {} if isinstance(reached, str) else reached

    def _submit(self, job: Job, machine: Machine, rest_s: float) -> None:
        self._threads.submit(self._run, job, machine, rest_s).add_done_callback(self._finished.put)

    def _run(self, job: Job, machine: Machine, rest_s: float) -> Finished:
        if self._stop.wait(rest_s):
            raise StoppedError
        row, samples = measure_cell(
            job.cell,
            replace(job.settings, device=machine.device),
            machine,
            job.log,
            lambda reading: self._progress.tick(job.cell, reading),
            self._stop,
        )
        return Finished(job, row, samples, machine)
