"""Static versions of a report's charts, from the same data, for pages without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from vlmprof.analysis.charts import Charts, FittedLine, FittedPanel, StackedLine
from vlmprof.analysis.frames import in_turn
from vlmprof.render.figures.layout import PAGES, family_entries, label_quantity, panel_grid, title_panel
from vlmprof.render.figures.style import STAGE_COLOURS, LineStyle, family_order, line_styles
from vlmprof.render.figures.ticks import label_positions, plain_log_labels, scale_sizes
from vlmprof.render.labels import SIZE_TITLES, line_label
from vlmprof.render.tables.columns import SCALED

MOST_PANELS = 12
"""Largest number of panels of stacked stages; in a browser, any line can be selected."""

_PAGE = PAGES["two-column"]


def stages_picture(charts: Charts) -> Figure | None:
    """Draw stacked stage latencies by size, a panel per line; None if no stage was measured."""
    stacks = charts.stacks
    ordered = [stacks.lines[i] for i in family_order(charts.scaling.lines)]
    drawn = [stacked for stacked in ordered if np.isfinite(stacked.latency_s).any()]
    if not drawn:
        return None
    shown = [drawn[i] for i in in_turn([stacked.line.backbone for stacked in drawn], MOST_PANELS)]
    entries = [
        Line2D([], [], label=stage, linestyle="none", marker="s", color=STAGE_COLOURS[stage])
        for stage in stacks.stages
    ]
    notes = [f"{'GPU' if stacks.clock == 'gpu' else 'Host'} latency by stage."]
    if len(drawn) > len(shown):
        notes.append(f"The first {len(shown)} of {len(drawn)} lines, backbones in turn.")
    figure, grid = _grid(len(shown), [[entry] for entry in entries], notes)
    for axes, stacked in zip(grid, shown, strict=True):
        _stack(axes, stacks.stages, stacked)
        title_panel(axes, line_label(stacked.line), _PAGE, len(shown))
    return figure


def launch_picture(charts: Charts) -> Figure | None:
    """Draw the launch-bound share of every stage against image size; None without a GPU clock."""
    stacks = charts.stacks
    panels = [
        (s, stage)
        for s, stage in enumerate(stacks.stages)
        if any(np.isfinite(stacked.launch_bound[s]).any() for stacked in stacks.lines)
    ]
    if stacks.clock != "gpu" or not panels:
        return None
    lines = charts.scaling.lines
    styles = line_styles(lines)
    notes = [f"Launch-bound share: {stacks.launch_measure}."]
    figure, grid = _grid(len(panels), family_entries(lines, _PAGE.line_pt, _PAGE.marker_pt), notes)
    for axes, (s, stage) in zip(grid, panels, strict=True):
        for stacked in (stacks.lines[i] for i in family_order(lines)):
            style = styles[stacked.line.key].line(_PAGE.line_pt, _PAGE.marker_pt)
            axes.plot(stacked.line.sizes, 100 * stacked.launch_bound[s], **style)
        axes.set_ylim(bottom=0)
        axes.set_title(stage.capitalize(), fontsize=_PAGE.font_pt, pad=4)
        axes.set_ylabel("Share (%)", fontsize=_PAGE.font_pt)
        scale_sizes(axes, charts.scaling.ticks, _PAGE.small_pt)
    return figure


def fits_picture(charts: Charts) -> Figure | None:
    """Draw measured points and fitted curves against tokens, a panel per column; None without fits."""
    fits = [panel for panel in charts.fits if any(panel.lines)]
    if not fits:
        return None
    styles = line_styles(charts.scaling.lines)
    fitted = {line.line.key for panel in fits for line in panel.lines if line is not None}
    lines = [line for line in charts.scaling.lines if line.key in fitted]
    order = family_order(charts.scaling.lines)
    notes = ["Points: measured. Curves: fits, with 95 % intervals (pale)."]
    figure, grid = _grid(len(fits), family_entries(lines, _PAGE.line_pt, _PAGE.marker_pt), notes)
    for axes, panel in zip(grid, fits, strict=True):
        _draw_fits(axes, panel, [panel.lines[i] for i in order], styles)
    return figure


def _draw_fits(
    axes: Axes,
    panel: FittedPanel,
    lines: Sequence[FittedLine | None],
    styles: Mapping[tuple[str, ...], LineStyle],
) -> None:
    present = [line for line in lines if line is not None]
    values = np.concatenate([line.values for line in present])
    size = label_quantity(axes, panel.unit, float(values.max()), _PAGE)
    for line in present:
        style = styles[line.line.key].line(_PAGE.line_pt, _PAGE.marker_pt)
        curve = line.curve
        low = np.maximum(curve.low / size, 1e-12)
        axes.fill_between(curve.tokens, low, curve.high / size, color=style["color"], alpha=0.13, lw=0)
        axes.plot(curve.tokens, curve.values / size, **(style | {"marker": ""}))
        axes.plot(line.tokens, line.values / size, **(style | {"linestyle": "none"}), gid="fitted")
    low, high = values[values > 0].min() / size, values.max() / size
    axes.set(xscale="log", yscale="log", ylim=(low / 1.5, high * 1.5))
    plain_log_labels(axes.yaxis)
    plain_log_labels(axes.xaxis)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    title = SCALED[panel.column][0]
    axes.set_title(title[:1].upper() + title[1:], fontsize=_PAGE.font_pt, pad=4)
    axes.set_xlabel(panel.tokens.capitalize(), fontsize=_PAGE.font_pt, labelpad=2)


def frontier_picture(charts: Charts) -> Figure | None:
    """Draw for each line the sizes that ran and the first out of memory; None if there was no OOM."""
    lines = [charts.scaling.lines[i] for i in family_order(charts.scaling.lines)]
    if all(line.first_oom is None for line in lines):
        return None
    styles = line_styles(lines)
    figure = Figure(figsize=(_PAGE.width_in, 0.75 + 0.15 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for y, line in enumerate(lines):
        style = styles[line.key].line(_PAGE.line_pt, _PAGE.marker_pt)
        ran = line.sizes[line.ok]
        axes.plot(ran, np.full(ran.size, y), **style, gid="ran")
        if line.first_oom is not None:
            first = line.first_oom.size
            if ran.size:
                way = {"color": style["color"], "linestyle": (0, (1, 1.5)), "linewidth": _PAGE.line_pt}
                axes.plot([ran[-1], first], [y, y], **way)
            axes.plot([first], [y], "x", color=style["color"], markersize=5, gid="oom")
    axes.set_yticks(range(len(lines)), [line_label(line) for line in lines], parse_math=False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(labelsize=_PAGE.small_pt, width=0.6, length=2.5, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(True, axis="x", color="0.92", linewidth=0.5)
    scale_sizes(axes, charts.scaling.ticks, _PAGE.small_pt)
    title = SIZE_TITLES[charts.scaling.along]
    axes.set_xlabel(f"{title}. Points: ran. ×: first out of memory", fontsize=_PAGE.font_pt)
    return figure


PICTURES: dict[str, Sequence[tuple[str, str, Callable[[Charts], Figure | None]]]] = {
    "time": (
        ("stages", "Stacked stage latencies of each line", stages_picture),
        ("launch", "Launch-bound share of each stage", launch_picture),
    ),
    "scaling": (("fits", "Measured points and fitted curves against tokens", fits_picture),),
    "frontier": (("frontier", "The largest image that ran and the first out of memory", frontier_picture),),
}
"""Pictures by section of the report: a word for the file name, a caption, and the function that draws it."""


def _grid(panels: int, groups: Sequence[list[Line2D]], notes: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Create a figure with three panels per row and a legend below."""
    figure, grid = panel_grid(panels, groups, notes, _PAGE, pad_in=0.04)
    for axes in grid:
        axes.tick_params(pad=2)
        axes.grid(True, axis="y", color="0.92", linewidth=0.5)
    return figure, grid


def _stack(axes: Axes, stages: Sequence[str], stacked: StackedLine) -> None:
    """Draw one line's stages as stacked bars, one per measured size."""
    run = np.flatnonzero(np.isfinite(stacked.latency_s).any(axis=0))
    heights = np.nan_to_num(stacked.latency_s[:, run])
    size = label_quantity(axes, "s", float(heights.sum(axis=0).max()), _PAGE)
    tops = np.cumsum(heights / size, axis=0)
    middles = np.arange(run.size)
    for stage, below, top in zip(stages, np.vstack([np.zeros(run.size), tops]), tops, strict=False):
        left, right = middles - 0.375, middles + 0.375
        corners = np.array([(left, below), (left, top), (right, top), (right, below)])
        bars = PolyCollection(list(corners.transpose(2, 0, 1)), facecolor=STAGE_COLOURS[stage], gid=stage)
        axes.add_collection(bars, autolim=False)
    axes.set(xlim=(-0.6, run.size - 0.4), ylim=(0, 1.05 * tops[-1].max()))
    labels = {float(i): stacked.line.size_labels[k] for i, k in enumerate(run)}
    label_positions(axes, labels, _PAGE.small_pt)
    axes.tick_params(axis="x", which="minor", length=0)
