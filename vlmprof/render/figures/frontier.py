"""The figure of an out-of-memory frontier: the largest size that fits against the memory budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlmprof.analysis.frames import LineName
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.style import line_styles
from vlmprof.render.labels import line_label
from vlmprof.render.tables.frontier import varied_axes
from vlmprof.settings import AxisValue
from vlmprof.units import GIB, show_bytes

if TYPE_CHECKING:
    from vlmprof.execution.frontier import Frontier
    from vlmprof.plan import Cell

FONT_PT = 7
_LARGEST = {
    "resolution": "largest image that fits: side (px)",
    "batch_size": "largest batch that fits",
    "frames": "most frames that fit",
}


def save_frontier(found: Sequence[Frontier], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw the largest size against the budget, one curve per line, as `frontier.*`; return the files.

    An upward arrow marks a budget that fits the largest candidate, so that the frontier is above it.
    """
    figure = Figure(figsize=(3.5, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axis = found[0].axis
    curves: dict[tuple[tuple[str, AxisValue], ...], list[Frontier]] = {}
    for one in found:
        curves.setdefault(tuple(one.line.items()), []).append(one)
    varied = varied_axes(found)
    lines = [
        LineName(str(dict(key)["backbone"]), {name: str(value) for name, value in key if name in varied})
        for key in curves
    ]
    styles = line_styles(lines)
    for line, points in zip(lines, curves.values(), strict=True):
        known = [point for point in points if point.fits is not None]
        budgets = [point.memory_limit_bytes / GIB for point in known]
        heights = [_measure(point.fits, axis) for point in known if point.fits is not None]
        style = styles[line.key].line(1.1, 3.4)
        axes.plot(budgets, heights, label=line_label(line), **style)
        for point, budget, size in zip(known, budgets, heights, strict=True):
            if point.fails is None:
                axes.annotate("", (budget, size * 1.12), (budget, size), arrowprops={"arrowstyle": "->"})
    ticks = sorted({one.memory_limit_bytes for one in found})
    axes.set_xscale("log")
    axes.set_xticks([tick / GIB for tick in ticks], [show_bytes(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.2 * max((_measure(one.fits, axis) for one in found if one.fits), default=1.0))
    axes.set_xlabel("memory", fontsize=FONT_PT)
    axes.set_ylabel(_LARGEST[axis], fontsize=FONT_PT)
    axes.tick_params(labelsize=FONT_PT)
    axes.grid(alpha=0.3, linewidth=0.4)
    # below the panel, where a handle cannot be taken for a point
    handles = axes.get_legend_handles_labels()[0]
    if any(one.fits is not None and one.fails is None for one in found):
        arrow = Line2D([], [], linestyle="none", marker=r"$\uparrow$", color="black", markeredgewidth=0.2)
        arrow.set_label("the largest tried fits")
        handles.append(arrow)
    columns = min(len(handles), 3)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=FONT_PT - 1, frameon=False
    )
    return save_figure(figure, folder, "frontier", formats, dpi=200)


def _measure(cell: Cell, axis: str) -> float:
    return math.sqrt(cell.height_px * cell.width_px) if axis == "resolution" else float(cell.axes.named[axis])
