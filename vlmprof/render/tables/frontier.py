"""The table of a search for the largest image, batch or number of frames that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmprof.render.tables.columns import axis_column, varied_names
from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.settings import AxisValue
from vlmprof.units import show_resolution

if TYPE_CHECKING:
    from vlmprof.execution.frontier import Frontier
    from vlmprof.plan import Cell


def search_sheet(found: Sequence[Frontier]) -> Sheet:
    """Return one row per line and memory budget: what fits, what does not, and the predicted size."""
    axis = found[0].axis

    def sizes(title: str, cells: Sequence[Cell | None], rank: int = 0) -> Column:
        raw = [_value(cell, axis) for cell in cells]
        return Column(title, Kind.TEXT, [_show(cell, axis) for cell in cells], rank, raw=raw)

    tokens = [None if one.fits is None else _tokens(one.fits) for one in found]
    endings = [
        {"out_of_memory_at": _value(one.fails, axis), "oom_stage": one.oom_stage, "undecided": one.trouble}
        for one in found
    ]
    note = "Counted: the largest size that fits according to the cost model. Probes: cells that ran."
    return Sheet("frontier", "Out-of-memory frontier", note, [
        axis_column("backbone", [str(one.line["backbone"]) for one in found]),
        *(axis_column(name, [one.line[name] for one in found]) for name in varied_axes(found)),
        Column("memory", Kind.BYTES, [one.memory_limit_bytes for one in found], key="memory_limit_bytes"),
        sizes("largest that fits", [one.fits for one in found]),
        Column("visual tokens", Kind.COUNT, tokens, 2),
        sizes("counted", [one.guess for one in found], 3),
        Column("probes", Kind.COUNT, [one.probes for one in found], 3),
        Column("ends with", Kind.TEXT, [_ending(one) for one in found], key="end", raw=endings),
    ])  # fmt: skip


def varied_axes(found: Sequence[Frontier]) -> list[str]:
    """Return the axes, other than the backbone, in which the lines of a search differ."""
    return varied_names([one.line for one in found], beside=("backbone",))


def _value(cell: Cell | None, axis: str) -> AxisValue | None:
    return None if cell is None else cell.axes.named[axis]


def _show(cell: Cell | None, axis: str) -> str:
    if cell is None:
        return "nothing"
    return show_resolution(cell.axes.named[axis]) if axis == "resolution" else str(cell.axes.named[axis])


def _ending(one: Frontier) -> str:
    if one.trouble is not None:
        return f"undecided: {one.trouble}"
    if one.fails is None:
        return "the largest tried"
    where = f" in {one.oom_stage}" if one.oom_stage else ""
    return f"out of memory at {_show(one.fails, one.axis)}{where}"


def _tokens(cell: Cell) -> int:
    return (cell.visual_tokens or 0) * cell.axes.batch_size
