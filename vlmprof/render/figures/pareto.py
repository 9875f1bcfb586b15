"""The figure of the Pareto front: quality against each cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vlmprof.analysis.advice import Advice, Limits
from vlmprof.analysis.frames import Line, numbers, split_lines
from vlmprof.render.figures.layout import Page, family_entries, page_of, panel_grid
from vlmprof.render.figures.style import line_styles
from vlmprof.render.figures.ticks import plain_log_labels
from vlmprof.render.labels import backbone_label
from vlmprof.render.tables.decisions import COST_WORDS
from vlmprof.render.tables.sheet import show, unit_of_kind
from vlmprof.units import show_resolution


def pareto_figure(advice: Advice, limits: Limits, width: str = "two-column") -> Figure:
    """Draw a panel of quality against each cost: the recommended cells circled, connected and labelled, those
    over a limit pale.

    Raises `UserError` for an unknown width.
    """
    page = page_of(width)
    lines = split_lines(advice.cells)
    legend = family_entries(lines, 0.0, page.marker_pt * 1.3)
    across = min(len(advice.costs), 2)
    figure, grid = panel_grid(
        len(advice.costs), across, legend, _notes(advice, limits), page, page.row_in * 1.4
    )
    names = [
        _draw(axes, advice, lines, limits, cost, page) for axes, cost in zip(grid, advice.costs, strict=True)
    ]
    figure.draw_without_rendering()
    for panel in names:
        _hide_overlaps(panel)
    return figure


def _notes(advice: Advice, limits: Limits) -> list[str]:
    notes = ["Circled: recommended."]
    if not advice.candidates["fits"].all():
        notes.append("Pale: over a limit.")
    given = {cost: limit for cost in advice.costs if (limit := _limit(limits, cost)) is not None}
    drawn = {cost for cost, limit in given.items() if _range(advice, cost, limit)[1] >= limit}
    if drawn:
        notes.append("Dashed: limit.")
    for cost in given.keys() - drawn:
        title, kind = COST_WORDS[cost]
        notes.append(f"The limit of {show(kind, given[cost])} on {title} is right of the panel.")
    return notes


def _limit(limits: Limits, cost: str) -> float | None:
    return {"ttft_s": limits.ttft_s, "memory_bytes": limits.memory_bytes}.get(cost)


def _range(advice: Advice, cost: str, limit: float | None) -> tuple[float, float]:
    """Return the lowest cost and the highest, or the limit if it is at most twice as high."""
    costs = numbers(advice.candidates, cost)
    low, high = float(np.nanmin(costs)), float(np.nanmax(costs))
    return min(low, limit or low), max(high, limit) if limit and limit <= 2 * high else high


def _draw(
    axes: Axes, advice: Advice, lines: Sequence[Line], limits: Limits, cost: str, page: Page
) -> list[Annotation]:
    """Draw one panel; return the labels of its front, best first."""
    rows = advice.candidates
    title, kind = COST_WORDS[cost]
    x, y = numbers(rows, cost), numbers(rows, advice.quality)
    unit, size = unit_of_kind(kind, float(np.nanmax(x)))
    x = x / size
    fits = rows["fits"].to_numpy(dtype=bool)
    styles = line_styles(lines)
    for line in lines:
        mine = rows["cell_id"].isin(line.rows["cell_id"]).to_numpy()
        look = styles[line.key].line(0.0, page.marker_pt * 1.3)
        for chosen, alpha in ((mine & fits, 1.0), (mine & ~fits, 0.3)):
            axes.plot(x[chosen], y[chosen], **look, alpha=alpha, zorder=3, gid="cells")
    front = np.flatnonzero(rows["on_front"])
    front = front[np.lexsort((x[front], y[front]))]
    axes.plot(
        x[front], y[front], color="0.4", linewidth=0.5 * page.line_pt, marker="o", fillstyle="none",
        markersize=2.4 * page.marker_pt, markeredgewidth=0.6, zorder=2, gid="front",
    )  # fmt: skip
    limit = _limit(limits, cost)
    low, high = _range(advice, cost, limit)
    if limit is not None and limit <= high:
        axes.axvline(limit / size, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), gid="limit")
    axes.set_xlabel(f"{title}{unit and f' ({unit})'}", fontsize=page.font_pt)
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.margins(y=0.1)
    _scale_costs(axes, low / size, high / size, page)
    _label_quality(axes, advice, page)
    named = front[np.lexsort((x[front], -y[front]))]
    labels = (
        f"{backbone_label(str(rows['backbone'].iloc[i]))} {show_resolution(rows['resolution'].iloc[i])}"
        for i in named
    )
    return [
        axes.annotate(
            label, (x[i], y[i]), xytext=(-3, 2), textcoords="offset points", va="bottom", ha="right",
            fontsize=page.font_pt * 0.8, parse_math=False,
        )
        for i, label in zip(named, labels, strict=True)
    ]  # fmt: skip


def _scale_costs(axes: Axes, low: float, high: float, page: Page) -> None:
    """Make the cost axis logarithmic, with room on the left for the labels of the front."""
    low, high = np.log(low), np.log(high)
    span = high - low or 1.0
    panel_pt = page.width_pt / 2 - 6 * page.font_pt
    name_share = min(9 * page.font_pt / panel_pt, 0.6)
    low, high = low - span * name_share / (1 - name_share), high + 0.06 * span
    axes.set_xscale("log")
    axes.set_xlim(float(np.exp(low)), float(np.exp(high)))
    plain_log_labels(axes.xaxis)


def _hide_overlaps(names: list[Annotation]) -> None:
    """Hide labels that overlap an earlier visible one."""
    kept: list[Annotation] = []
    for name in names:
        box = name.get_window_extent()
        clear = not any(box.overlaps(other.get_window_extent()) for other in kept)
        name.set_visible(clear)
        name.set_in_layout(False)
        if clear:
            kept.append(name)


def _label_quality(axes: Axes, advice: Advice, page: Page) -> None:
    if advice.quality != "pixels":
        axes.set_ylabel(advice.quality.replace("_", " "), fontsize=page.font_pt, parse_math=False)
        return
    axes.set_ylabel("Image size (pixels)", fontsize=page.font_pt)
    axes.set_yscale("log")
    pixels = np.unique(numbers(advice.candidates, "pixels"))[::-1]
    kept = [pixels[0]]
    for value in pixels:
        if value * 1.7 <= kept[-1]:
            kept.append(value)
    axes.yaxis.set_major_locator(FixedLocator(kept))
    axes.yaxis.set_minor_locator(NullLocator())
    names = dict(zip(numbers(advice.candidates, "pixels"), advice.candidates["resolution"], strict=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show_resolution(names[value])))
