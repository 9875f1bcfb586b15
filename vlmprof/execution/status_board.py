"""What a cell's process is doing, in a few integers that it shares with the sweep's process.

Writing one costs some tens of nanoseconds, so a stage can, and it is read even if the writer is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import Array, c_int64
from dataclasses import dataclass
from typing import Any

from vlmprof.measure.observer import Phase
from vlmprof.records import STAGES

PLACES = ("load", "build", *STAGES)
"""Where a process can be when memory runs out: starting, building the model, or in a stage."""


@dataclass(frozen=True)
class Reading:
    """The status at one moment."""

    phase: Phase
    place: str
    iteration: int
    iterations: int

    def __str__(self) -> str:
        words = self.phase.name.lower().replace("_", " ")
        if self.phase in (Phase.WARMING_UP, Phase.MEASURING):
            of = f"/{self.iterations}" if self.iterations else ""
            return f"{words} {self.iteration}{of}, {self.place}"
        return words


class StatusBoard:
    """A measurement's `Observer` in shared memory: phase, place, iteration, iterations."""

    def __init__(self, cells: Array[c_int64]) -> None:
        self._cells: Any = cells

    @classmethod
    def shared(cls, context: Any) -> StatusBoard:
        """A new board in memory that processes of a multiprocessing context can share."""
        return cls(context.RawArray(c_int64, 4))

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        """A phase of `iterations` iterations, 0 if not known, begins in `place`, one of `PLACES`."""
        self._cells[:] = [phase, PLACES.index(place), 0, iterations]

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        """A function that marks stage `i` as running."""
        cells, places = self._cells, [PLACES.index(stage) for stage in stages]

        def mark(i: int) -> None:
            cells[1] = places[i]

        return mark

    def count(self, iteration: int) -> None:
        """Iteration number `iteration`, from 0, begins."""
        self._cells[2] = iteration + 1

    def read(self) -> Reading:
        """The status now."""
        phase, place, iteration, iterations = self._cells
        return Reading(Phase(phase), PLACES[place], iteration, iterations)
