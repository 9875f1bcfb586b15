"""Counts the costs of many cells on several cores: each process takes the next line when it is free."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlmprof.execution.processes import call_in_process, context, start_fork_server
from vlmprof.plan import Cell
from vlmprof.settings import Settings

if TYPE_CHECKING:
    from vlmprof.cost.count import Counted
    from vlmprof.cost.scans import Kernels

CELLS_PER_PROCESS = 40
"""Fewer are counted before another process has loaded its libraries."""
PRELOAD = "vlmprof.execution.preload_counting"
COLLECT_AFTER = 1_000_000
"""Objects made before the first collection. At Python's usual pace, collections take a quarter of the time
that torch and transformers take to load, and find nothing: all that is made then stays."""


def get_ready_to_count(cells: Sequence[Cell]) -> None:
    """Let the other processes load their libraries while this one loads its own.

    From now on this process collects garbage less often.
    """
    gc.set_threshold(COLLECT_AFTER)
    if worth_starting(cells):
        start_fork_server(PRELOAD)


def worth_starting(cells: Sequence[Cell]) -> int:
    """The number of processes beside this one that are worth starting to count these cells."""
    lines = {cell.line for cell in cells if cell.skip_reason is None}
    return max(0, min((os.cpu_count() or 1) - 1, len(lines) - 1, len(cells) // CELLS_PER_PROCESS - 1))


def count_on_all_cores(
    cells: Sequence[Cell],
    settings: Settings,
    kernels: Kernels,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Counted]:
    """As `cost.count.count_cells`, to the same result, in this process and in as many as are worth it.

    `on_cell` hears of the cells that this process counts.
    """
    lines: dict[object, list[Cell]] = {}
    for cell in cells:
        if cell.skip_reason is None:
            lines.setdefault(cell.line, []).append(cell)
    from vlmprof.cost.count import count_cells

    others = worth_starting(cells)
    if not others:
        return count_cells(cells, settings, kernels, on_cell)
    waiting = context().SimpleQueue()
    # specifications go from small models to large ones, and the longest work is best begun first
    for line in (*reversed(lines.values()), *([None] * (others + 1))):
        waiting.put(line)
    found: dict[str, Counted] = {}

    def count_elsewhere() -> None:
        ended = call_in_process("vlmprof.execution.counting:count_waiting", (waiting, settings, kernels))
        found.update({cell.cell_id: (cell, cost) for cell, cost in ended.value or ()})

    threads = [threading.Thread(target=count_elsewhere, daemon=True) for _ in range(others)]
    for thread in threads:
        thread.start()
    found |= {cell.cell_id: (cell, cost) for cell, cost in count_waiting(waiting, settings, kernels, on_cell)}
    for thread in threads:
        thread.join()
    # what another process could not count is counted here, or says here why it cannot be
    missing = [cell for line in lines.values() for cell in line if cell.cell_id not in found]
    found |= {cell.cell_id: (cell, cost) for cell, cost in count_cells(missing, settings, kernels, on_cell)}
    return [found[cell.cell_id] for cell in cells if cell.skip_reason is None]


def count_waiting(
    waiting: Any,
    settings: Settings,
    kernels: Kernels,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Counted]:
    """Count lines of cells from a queue until it gives None."""
    from vlmprof.cost.count import count_cells

    counted: list[Counted] = []
    while (line := waiting.get()) is not None:
        counted += count_cells(line, settings, kernels, on_cell)
    return counted
