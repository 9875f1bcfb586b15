"""The order in which a sweep runs its cells."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from vlmprof.plan import Cell
from vlmprof.records import repeat_id


def in_order(cells: Sequence[Cell], order: str, seed: int) -> list[Cell]:
    """Return the cells in running order: by `lines`, `interleaved` from small to large across lines, or
    `random`. The last two keep slow drift of the machine from looking like a difference between backbones."""
    if order == "interleaved":
        return sorted(cells, key=lambda cell: cell.height_px * cell.width_px * cell.axes.frames)
    if order == "random":
        return random.Random(seed).sample(list(cells), len(cells))
    return list(cells)


def repeated(cells: Sequence[Cell], repeats: int, order: str, seed: int) -> list[Cell]:
    """Return the cells `repeats` times in running order, one pass over all of them after another.

    Passes keep slow drift of the machine from looking like a difference between cells. With `order` random,
    each pass has its own order.
    """
    return [
        replace(cell, cell_id=repeat_id(cell.cell_id, repeat), repeat=repeat)
        for repeat in range(1, repeats + 1)
        for cell in in_order(cells, order, seed + repeat - 1)
    ]
