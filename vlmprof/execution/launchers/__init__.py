"""Where cells run: `local` on this machine's devices, `ray` on a cluster's. What the sweep asks of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import Row
from vlmprof.settings import Settings


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
    place: Any
    """Where it ran, for `Launcher.repeat`."""


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

    def repeat(self, finished: Finished, rest_s: float) -> None:
        """Run a job again where it ran, after that device has rested for `rest_s` seconds.

        Call it before any other job is started. The other devices go on meanwhile.
        """

    def wait(self) -> Finished:
        """Wait for the next job to end."""
