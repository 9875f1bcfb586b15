"""The Pareto front of quality against each cost, drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vlmprof.analysis.advice import Advice, Limits, pareto_front
from vlmprof.analysis.frames import numbers, show_resolution, split_lines
from vlmprof.errors import unknown
from vlmprof.render.decision_sheets import COST_WORDS
from vlmprof.render.page import PAGES, Page
from vlmprof.render.sheets import Kind, bytes_unit, seconds_unit
from vlmprof.render.style import backbone_label, line_styles

_MOST_LABELS = 12


def pareto_figure(advice: Advice, limits: Limits, width: str = "two-column") -> Figure:
    """Quality against each cost, a panel each: the front joined, cells beyond the limits pale.

    Raises `UserError` for an unknown width.
    """
    if width not in PAGES:
        raise unknown("figure width", width, PAGES)
    page = PAGES[width]
    costs = list(advice.costs)
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    across = min(len(costs), 2)
    down = -(-len(costs) // across)
    figure = Figure(
        (page.width_in, down * page.row_in * 1.45 + 0.3), dpi=200, facecolor="white", layout=engine
    )
    grid = figure.subplots(down, across, squeeze=False)
    for axes, cost in zip(grid.flat, costs, strict=False):
        _draw(axes, advice, limits, cost, page)
    for axes in list(grid.flat)[len(costs) :]:
        axes.set_visible(False)
    return figure


def _draw(axes: Axes, advice: Advice, limits: Limits, cost: str, page: Page) -> None:
    rows = advice.candidates
    title, kind = COST_WORDS[cost]
    x, y = numbers(rows, cost), numbers(rows, advice.quality)
    unit, size = _unit(kind, float(np.nanmax(x)))
    fits = rows["fits"].to_numpy(dtype=bool)
    styles = line_styles(lines := split_lines(advice.cells))
    for line in lines:
        mine = rows["cell_id"].isin(line.rows["cell_id"]).to_numpy()
        look = styles[line.key]
        for chosen, alpha in ((mine & fits, 1.0), (mine & ~fits, 0.3)):
            axes.plot(
                x[chosen] / size, y[chosen], linestyle="none", marker=look.marker, color=look.colour,
                alpha=alpha, fillstyle=look.fill, markerfacecoloralt="white",
                markersize=page.marker_pt * 1.3, zorder=3,
            )  # fmt: skip
    front = np.flatnonzero(fits)[pareto_front(np.column_stack([x, -y])[fits])]
    front = front[np.argsort(x[front])]
    axes.plot(x[front] / size, y[front], color="0.4", linewidth=page.line_pt, zorder=2, gid="front")
    for i in front[-_MOST_LABELS:]:
        name = (
            f"{backbone_label(str(rows['backbone'].iloc[i]))} {show_resolution(rows['resolution'].iloc[i])}"
        )
        axes.annotate(
            name, (x[i] / size, y[i]), xytext=(3, -3), textcoords="offset points", va="top",
            fontsize=page.font_pt * 0.8,
        )  # fmt: skip
    limit = {"ttft_s": limits.ttft_s, "memory_bytes": limits.memory_bytes}.get(cost)
    if limit is not None:
        axes.axvline(limit / size, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), gid="limit")
    axes.set_xlabel(f"{title}{unit and f' ({unit})'}", fontsize=page.font_pt)
    axes.tick_params(labelsize=page.font_pt * 0.93, width=0.6, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.1)
    _label_quality(axes, advice, page)


def _label_quality(axes: Axes, advice: Advice, page: Page) -> None:
    if advice.quality != "pixels":
        axes.set_ylabel(advice.quality.replace("_", " "), fontsize=page.font_pt)
        return
    axes.set_ylabel("Image size (pixels)", fontsize=page.font_pt)
    axes.yaxis.set_major_formatter(lambda pixels, _: f"{max(pixels, 0) ** 0.5:,.0f}²")


def _unit(kind: Kind, largest: float) -> tuple[str, float]:
    if kind is Kind.SECONDS:
        return seconds_unit(largest)
    return bytes_unit(largest) if kind is Kind.BYTES else ("", 1.0)
