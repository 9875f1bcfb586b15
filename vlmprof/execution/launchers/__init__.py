"""Launchers run cells: `local` on this machine's devices, `ray` on those of a cluster."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlmprof.execution.ceilings import Ceilings
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import Row
from vlmprof.settings import Settings


@dataclass(frozen=True)
class Job:
    """A cell to run with its settings, and the log file for its process."""

    cell: Cell
    settings: Settings
    log: Path


@dataclass(frozen=True)
class Finished:
    """A finished job, always with a row."""

    job: Job
    row: Row
    samples: Samples
    place: Any
    """The place where it ran, for `Launcher.repeat`."""


class Launcher(Protocol):
    """Runs jobs, one per device. Leaving the context ends all running jobs."""

    def __enter__(self) -> Launcher: ...

    def __exit__(self, *ended: object) -> None: ...

    def has_room(self) -> bool:
        """Return whether another job can start now."""

    def start(self, job: Job) -> None:
        """Start a job. Requires `has_room`."""

    def repeat(self, finished: Finished, rest_s: float) -> None:
        """Run a job again in the same place, after its device has been idle for `rest_s` seconds.

        Must be called before any other job is started. The other devices continue meanwhile.
        """

    def wait(self) -> Finished:
        """Wait for the next job to end."""

    def ceilings(self, dtypes: Collection[str]) -> Ceilings:
        """Measure the ceilings of a free device; empty if they cannot be measured."""
