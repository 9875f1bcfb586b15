"""The duration of an iteration by counting, in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vlmprof.cost.costs import CellCost
from vlmprof.cost.count import count_cell
from vlmprof.plan import Cell
from vlmprof.settings import Settings

LEAST_S = 5e-3
"""Shortest iteration: the time to launch the kernels of a small model."""


def iteration_seconds(
    cells: Sequence[Cell], settings: Settings, ceilings: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Estimate the seconds of one iteration of each cell by id, from its dtype's ceilings of a device.

    The smallest and the largest cell of a line are counted; those between are interpolated in logarithms of
    pixels and seconds.
    """
    lines: dict[object, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(cell.line, []).append(cell)
    found: dict[str, float] = {}
    for own in lines.values():
        ordered = sorted(own, key=_pixels)
        ends = [ordered[0], *ordered[-1:]]
        seconds = [_seconds(cell, settings, ceilings[cell.axes.dtype]) for cell in ends]
        x, y = np.log([_pixels(cell) for cell in ends]), np.log(seconds)
        between = np.exp(np.interp(np.log([_pixels(cell) for cell in ordered]), x, y))
        found |= {cell.cell_id: float(value) for cell, value in zip(ordered, between, strict=True)}
    return found


def _seconds(cell: Cell, settings: Settings, ceilings: Mapping[str, float]) -> float:
    cost: CellCost = count_cell(cell, settings, "torch" if settings.device.startswith("cpu") else "triton")
    work = [
        max(
            (stage.flops - stage.skipped_flops) / ceilings["matmul_ceiling_flops_per_s"],
            stage.moved_bytes / ceilings["copy_ceiling_bytes_per_s"],
        )
        for stage in cost.stages.values()
    ]
    return max(math.fsum(work), LEAST_S)


def _pixels(cell: Cell) -> int:
    return cell.height_px * cell.width_px
