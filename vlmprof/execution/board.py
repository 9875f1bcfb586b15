"""Where a cell's process says what it is doing: a few shared integers, so cheap that a stage can.

Writing one costs some tens of nanoseconds and reaches the sweep's process even if the writer is killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array, c_int64
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vlmprof.records import STAGES

PLACES = ("load", "build", *STAGES)
"""Where a process can be when memory runs out: before, while building, or in a stage."""


class Phase(IntEnum):
    """What a cell's process is doing."""

    STARTING = 0
    BUILDING = 1
    WARMING_UP = 2
    MEASURING = 3
    READING_MEMORY = 4
    PROFILING = 5


@dataclass(frozen=True)
class Reading:
    """What the board said at one moment."""

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


class Board:
    """A view on the shared integers: phase, place, iteration, iterations."""

    def __init__(self, cells: Array[c_int64]) -> None:
        self._cells: Any = cells

    @classmethod
    def shared(cls, context: Any) -> Board:
        """A new board in memory that the processes of a multiprocessing context can share."""
        return cls(context.RawArray(c_int64, 4))

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        """A new phase begins."""
        self._cells[:] = [phase, PLACES.index(place), 0, iterations]

    def stage_marker(self, stages: Sequence[str]) -> Any:
        """A function that marks stage `i` of an iteration as running."""
        cells, places = self._cells, [PLACES.index(stage) for stage in stages]

        def mark(i: int) -> None:
            cells[1] = places[i]

        return mark

    def count(self, iteration: int) -> None:
        """Iteration number `iteration`, from 0, begins."""
        self._cells[2] = iteration + 1

    def read(self) -> Reading:
        """What stands on the board now."""
        phase, place, iteration, iterations = self._cells
        return Reading(Phase(phase), PLACES[place], iteration, iterations)
