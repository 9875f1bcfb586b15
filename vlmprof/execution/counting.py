"""Counting of costs on several cores: each process takes the next line of cells when it is free."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlmprof.execution.processes import call_in_process
from vlmprof.execution.starting import context, start_fork_server
from vlmprof.plan import Cell
from vlmprof.settings import Settings

if TYPE_CHECKING:
    from vlmprof.cost.count import Counted
    from vlmprof.cost.scans import Kernels

CELLS_PER_PROCESS = 40
"""Cells that justify another process; fewer are counted before it has loaded its libraries."""
PRELOAD = "vlmprof.execution.preload_counting"
COLLECT_AFTER = 1_000_000
"""Objects allocated before the first collection. With Python's default, collections account for a quarter of
the import time of torch and transformers and find no garbage, because imports keep their objects."""


def get_ready_to_count(cells: Sequence[Cell]) -> None:
    """Start loading libraries in the other processes, so that this process can load its own meanwhile.

    Also makes this process collect garbage less often.
    """
    gc.set_threshold(COLLECT_AFTER)
    if worth_starting(cells):
        start_fork_server(PRELOAD)


def worth_starting(cells: Sequence[Cell]) -> int:
    """Return the number of additional processes that are worth starting to count these cells."""
    lines = {cell.line for cell in cells if cell.skip_reason is None}
    return max(0, min((os.cpu_count() or 1) - 1, len(lines) - 1, len(cells) // CELLS_PER_PROCESS - 1))


def count_on_all_cores(
    cells: Sequence[Cell],
    settings: Settings,
    kernels: Kernels,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Counted]:
    """Count costs as `cost.count.count_cells` does, in this process and as many others as are worth it.

    `on_cell` is called for the cells that this process counts.
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

    def fill() -> None:
        # specifications list models from small to large, and the longest work should start first
        for line in (*reversed(lines.values()), *([None] * (others + 1))):
            waiting.put(line)

    found: dict[str, Counted] = {}

    def count_elsewhere() -> None:
        ended = call_in_process("vlmprof.execution.counting:count_waiting", (waiting, settings, kernels))
        found.update({cell.cell_id: (cell, cost) for cell, cost in ended.value or ()})

    # the queue holds 64 KiB, so that it has to be emptied while it is filled
    threading.Thread(target=fill, daemon=True).start()
    threads = [threading.Thread(target=count_elsewhere, daemon=True) for _ in range(others)]
    for thread in threads:
        thread.start()
    found |= {cell.cell_id: (cell, cost) for cell, cost in count_waiting(waiting, settings, kernels, on_cell)}
    for thread in threads:
        thread.join()
    # cells that failed in another process are counted again here, where an error is raised
    missing = [cell for line in lines.values() for cell in line if cell.cell_id not in found]
    found |= {cell.cell_id: (cell, cost) for cell, cost in count_cells(missing, settings, kernels, on_cell)}
    return [found[cell.cell_id] for cell in cells if cell.skip_reason is None]


def count_waiting(
    waiting: Any,
    settings: Settings,
    kernels: Kernels,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Counted]:
    """Count lines of cells from a queue until it yields None."""
    from vlmprof.cost.count import count_cells

    counted: list[Counted] = []
    while (line := waiting.get()) is not None:
        counted += count_cells(line, settings, kernels, on_cell)
    return counted
