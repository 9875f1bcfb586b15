"""Progress of a sweep: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from vlmprof.activity import say
from vlmprof.execution.duration import TimeLeft
from vlmprof.execution.status_board import Reading
from vlmprof.plan import Cell
from vlmprof.records import FAILED, Row, Status
from vlmprof.store import LOGS
from vlmprof.units import show_duration, show_seconds

RECENT = 4
LONG_CELL_S = 10.0
"""Runtime after which plain progress also prints a line for the running cell."""
STYLES = {Status.OK: "green", Status.OOM: "yellow", Status.SKIPPED: "dim", Status.TIMEOUT: "magenta"}


class Progress:
    """Receives the events of a sweep. This one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        pass

    def begin(self, todo: Sequence[Cell], kept: int, expected_s: Mapping[str, float] = {}) -> None:
        """Start with the cells to run and the number of cells that were done before.

        `expected_s` is how long cells are estimated to take, by cell id, as far as that is known.
        """

    def tick(self, cell: Cell, reading: Reading) -> None:
        """Show that `cell` is running with status `reading`."""

    def finished(self, cell: Cell, row: Row) -> None:
        """Show that `cell` has ended with `row`."""


class LiveProgress(Progress):
    """Progress for a terminal: the last cells, the running cell with its stage, a bar and the time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.description}"), console=console
        )
        self._task = self._bar.add_task("looking at the device", total=None)
        self._recent: list[Text] = []
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._view)
        self._left = TimeLeft([])
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._live.stop()

    def begin(self, todo: Sequence[Cell], kept: int, expected_s: Mapping[str, float] = {}) -> None:
        self._left = TimeLeft(todo, expected_s)
        left = self._left.seconds()
        rest = f"starting, about {show_duration(left)} left" if left else "starting"
        self._bar.update(self._task, total=len(todo) + kept, completed=kept, description=rest)
        self._begun = time.monotonic()

    def tick(self, cell: Cell, reading: Reading) -> None:
        left = self._left.seconds(time.monotonic() - self._begun)
        rest = "" if left is None else f", about {show_duration(left)} left"
        self._bar.update(self._task, description=f"{cell.label}: {reading}{rest}")

    def finished(self, cell: Cell, row: Row) -> None:
        now = time.monotonic()
        self._left.finished(cell, now - self._begun, row.status is not Status.SKIPPED)
        self._begun = now
        self._recent = [*self._recent, Text(describe(cell, row), STYLES.get(row.status, "red"))][-RECENT:]
        self._bar.advance(self._task)

    def _view(self) -> Group:
        return Group(*self._recent, self._bar)


class PlainProgress(Progress):
    """Progress for files and pipes: a line per cell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = TimeLeft([])
        self._number = self._total = 0
        self._begun = time.monotonic()

    def begin(self, todo: Sequence[Cell], kept: int, expected_s: Mapping[str, float] = {}) -> None:
        self._left = TimeLeft(todo, expected_s)
        self._number, self._total = kept, len(todo) + kept
        if kept:
            self._say(f"{kept} of {self._total} cells were done before")
        left = self._left.seconds()
        if left and todo:
            self._say(f"{len(todo)} cells to run, about {show_duration(left)}")
        self._begun = time.monotonic()

    def tick(self, cell: Cell, reading: Reading) -> None:
        phase = reading.phase.name.lower().replace("_", " ")
        say(f"{cell.label}: {phase}", patience_s=LONG_CELL_S)

    def finished(self, cell: Cell, row: Row) -> None:
        now = time.monotonic()
        self._left.finished(cell, now - self._begun, row.status is not Status.SKIPPED)
        self._begun = now
        self._number += 1
        left = self._left.seconds()
        rest = "" if left is None or self._number == self._total else f", about {show_duration(left)} left"
        self._say(f"[{self._number}/{self._total}] {describe(cell, row)}{rest}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(cell: Cell, row: Row) -> str:
    """Describe a finished cell in a line: `vit-s @ 224: ok, 58.1 ms end to end`."""
    if row.status is Status.OK:
        return f"{cell.label}: ok, {show_seconds(row.end_to_end_s or 0.0)} end to end"
    where = f" in {row.oom_stage}" if row.oom_stage else ""
    log = f"; log: {LOGS}/{row.cell_id}.txt" if row.status in FAILED else ""
    return f"{cell.label}: {row.status}{where}, {row.message}{log}"


def choose_progress() -> Progress:
    """Return live progress on a terminal and plain lines otherwise, both on standard error."""
    console = Console(stderr=True)
    return LiveProgress(console) if sys.stderr.isatty() and console.is_terminal else PlainProgress(console)
