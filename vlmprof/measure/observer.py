"""The observer of a running measurement, such as another process through shared memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum


class Phase(IntEnum):
    """The phase of a measuring process."""

    STARTING = 0
    BUILDING = 1
    WARMING_UP = 2
    MEASURING = 3
    READING_MEMORY = 4
    PROFILING = 5


class Observer:
    """Receives calls from inside the measuring loop, so every method must have negligible cost.

    This one does nothing.
    """

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        """Start a phase of `iterations` iterations (0 if unknown) in stage `place`."""

    def count(self, iteration: int) -> None:
        """Start iteration number `iteration`, counted from 0."""

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        """Return a function to call with `i` before stage `i` of an iteration runs."""
        return lambda i: None
