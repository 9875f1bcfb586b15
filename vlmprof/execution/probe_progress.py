"""Progress of a frontier search: the probes and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console

from vlmprof.activity import say
from vlmprof.execution.progress import Progress, describe
from vlmprof.execution.status_board import Reading
from vlmprof.plan import Cell
from vlmprof.records import Row
from vlmprof.units import show_bytes


class ProbeProgress(Progress):
    """Prints a line per probe and, on a terminal, the status of the running one, without a total."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("querying the device")

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._status.stop()

    def begin(self, todo: Sequence[Cell], kept: int, expected_s: Mapping[str, float] = {}) -> None:
        say("counting")
        self._status.update("counting")

    def tick(self, cell: Cell, reading: Reading) -> None:
        say(f"probing {_within(cell)}{cell.label}")
        self._status.update(f"{_within(cell)}{cell.label}: {reading}")

    def finished(self, cell: Cell, row: Row) -> None:
        line = f"{_within(cell)}{describe(cell, row)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _within(cell: Cell) -> str:
    batch = cell.axes.batch_size
    images = f"batch {batch}, " if batch > 1 else ""
    return f"{show_bytes(cell.axes.memory_limit_bytes or 0)}: {images}"
