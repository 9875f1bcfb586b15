"""The status of a cell's process, in a few integers shared with the sweep's process.

A write takes tens of nanoseconds, so it is possible in every stage, and the value survives its writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import Array, c_int64
from dataclasses import dataclass
from typing import Any

from vlmprof.measure.observer import Observer, Phase
from vlmprof.records import STAGES

PLACES = ("load", "build", *STAGES)
"""Places where a process can run out of memory: loading libraries, building the model, or a stage."""


@dataclass(frozen=True)
class Reading:
    """The status at one point in time."""

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


class StatusBoard(Observer):
    """An observer in shared memory: phase, place, iteration, iterations."""

    def __init__(self, cells: Array[c_int64]) -> None:
        self._cells: Any = cells

    @classmethod
    def shared(cls, context: Any) -> StatusBoard:
        """Create a board in shared memory of a multiprocessing context."""
        return cls(context.RawArray(c_int64, 4))

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        self._cells[:] = [phase, PLACES.index(place), 0, iterations]

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        cells, places = self._cells, [PLACES.index(stage) for stage in stages]

        def mark(i: int) -> None:
            cells[1] = places[i]

        return mark

    def count(self, iteration: int) -> None:
        self._cells[2] = iteration + 1

    def read(self) -> Reading:
        """Return the current status."""
        phase, place, iteration, iterations = self._cells
        return Reading(Phase(phase), PLACES[place], iteration, iterations)
