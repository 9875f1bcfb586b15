"""Who follows a measurement while it runs, such as another process through shared memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol


class Phase(IntEnum):
    """What a measuring process is doing."""

    STARTING = 0
    BUILDING = 1
    WARMING_UP = 2
    MEASURING = 3
    READING_MEMORY = 4
    PROFILING = 5


class Observer(Protocol):
    """Is called from inside the measuring loop, so every method must cost next to nothing."""

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        """A phase of `iterations` iterations, 0 if not known, begins in stage `place`."""

    def count(self, iteration: int) -> None:
        """Iteration number `iteration`, from 0, begins."""

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        """A function that is called with `i` before stage `i` of an iteration runs."""


class Unobserved:
    """An observer that ignores what it is told."""

    def enter(self, phase: Phase, place: str, iterations: int = 0) -> None:
        pass

    def count(self, iteration: int) -> None:
        pass

    def stage_marker(self, stages: Sequence[str]) -> Callable[[int], None]:
        return lambda i: None
