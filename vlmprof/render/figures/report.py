"""The charts of a report as pictures, for pages that cannot draw: from the same numbers as the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from vlmprof.analysis.frames import Line
from vlmprof.records import Status
from vlmprof.render.figures.layout import PAGES, add_legend
from vlmprof.render.figures.style import STAGE_COLOURS, by_family, line_styles
from vlmprof.render.figures.ticks import label_resolutions, plain_log_labels, resolution_labels
from vlmprof.render.labels import line_label
from vlmprof.render.tables.sheet import seconds_unit

if TYPE_CHECKING:
    from vlmprof.render.report.content import Content

MOST_PANELS = 12
"""Lines that get a panel of stacked stages; in a browser any line can be chosen."""

_PAGE = PAGES["two-column"]
_ACROSS = 3
_GIB = 2.0**30


def stages_picture(content: Content) -> Figure | None:
    """Stacked stage latencies by resolution, a panel per line; None where no stage was measured."""
    stacks, names = content.charts["stacks"], content.charts["lines"]
    drawn = [
        (name["label"], line)
        for name, line in zip(names, stacks["lines"], strict=True)
        if any(value is not None for stage in line["seconds"] for value in stage)
    ]
    if not drawn:
        return None
    shown = drawn[:MOST_PANELS]
    entries = [
        Line2D([], [], label=stage, linestyle="none", marker="s", color=STAGE_COLOURS[stage])
        for stage in stacks["stages"]
    ]
    notes = [f"{stacks['clock']} latency by stage."]
    if len(drawn) > len(shown):
        notes.append(f"The first {len(shown)} of {len(drawn)} lines.")
    figure, grid = _grid(len(shown), [[entry] for entry in entries], notes)
    for axes, (label, line) in zip(grid, shown, strict=True):
        _stack(axes, stacks["stages"], line)
        axes.set_title(label, fontsize=_PAGE.font_pt, pad=4, parse_math=False)
    return figure


def launch_picture(content: Content) -> Figure | None:
    """The launch-bound share of every stage against image size; None without a GPU's clock."""
    stacks, lines = content.charts["stacks"], _ordered(content.lines)
    panels = [
        (s, stage)
        for s, stage in enumerate(stacks["stages"])
        if any(value is not None for line in stacks["lines"] for value in line["launch_bound"][s])
    ]
    if stacks["clock"] != "GPU" or not panels:
        return None
    styles = line_styles(lines)
    figure, grid = _grid(len(panels), _legend(lines), [f"{stacks['launch_words']}."])
    for axes, (s, stage) in zip(grid, panels, strict=True):
        for line, data in zip(lines, stacks["lines"], strict=True):
            share = 100 * np.array(data["launch_bound"][s], dtype=np.float64)
            axes.plot(line.pixels, share, **styles[line.key].line(_PAGE.line_pt, _PAGE.marker_pt))
        axes.set_ylim(bottom=0)
        axes.set_title(stage.capitalize(), fontsize=_PAGE.font_pt, pad=4)
        axes.set_ylabel("Share (%)", fontsize=_PAGE.font_pt)
        label_resolutions(axes, resolution_labels(lines), _PAGE.font_pt * 0.93)
    return figure


def fits_picture(content: Content) -> Figure | None:
    """Measured points and fitted curves over visual tokens, a panel per figure; None without a fit."""
    lines = _ordered(content.lines)
    fits = [fit for fit in content.charts["fits"] if any(fit["lines"])]
    if not fits:
        return None
    styles = line_styles(lines)
    fitted = [line for i, line in enumerate(lines) if any(fit["lines"][i] for fit in fits)]
    notes = ["Points: measured. Curves: fits, with their 95 % intervals pale."]
    figure, grid = _grid(len(fits), _legend(fitted), notes)
    for axes, fit in zip(grid, fits, strict=True):
        present = [(line, data) for line, data in zip(lines, fit["lines"], strict=True) if data]
        largest = max(value for _, data in present for value in data["values"])
        unit, size = ("GiB", _GIB) if fit["kind"] == "bytes" else seconds_unit(largest)
        for line, data in present:
            style = styles[line.key].line(_PAGE.line_pt, _PAGE.marker_pt)
            tokens = data["curve_tokens"]
            low, high = (np.array(data[end]) / size for end in ("low", "high"))
            axes.fill_between(tokens, np.maximum(low, 1e-12), high, color=style["color"], alpha=0.13, lw=0)
            axes.plot(tokens, np.array(data["curve"]) / size, **(style | {"marker": ""}))
            points = np.array(data["values"]) / size
            axes.plot(data["tokens"], points, **(style | {"linestyle": "none"}), gid="fitted")
        values = [value / size for _, data in present for value in data["values"]]
        axes.set(xscale="log", yscale="log", ylim=(min(values) / 1.5, max(values) * 1.5))
        plain_log_labels(axes.yaxis)
        plain_log_labels(axes.xaxis)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(fit["title"][:1].upper() + fit["title"][1:], fontsize=_PAGE.font_pt, pad=4)
        axes.set_xlabel("Visual tokens", fontsize=_PAGE.font_pt, labelpad=2)
        quantity = "Memory" if fit["kind"] == "bytes" else "Latency"
        axes.set_ylabel(f"{quantity} ({unit})", fontsize=_PAGE.font_pt)
    return figure


def frontier_picture(content: Content) -> Figure | None:
    """For each line the sizes that ran and the first out of memory; None where memory never ran out."""
    lines = _ordered(content.lines)
    if all(line.first_oom_pixels is None for line in lines):
        return None
    styles = line_styles(lines)
    figure = Figure(figsize=(_PAGE.width_in, 0.75 + 0.15 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for y, line in enumerate(lines):
        style = styles[line.key].line(_PAGE.line_pt, _PAGE.marker_pt)
        ran = line.pixels[(line.rows["status"] == Status.OK).to_numpy()]
        axes.plot(ran, np.full(ran.size, y), **style, gid="ran")
        if (first := line.first_oom_pixels) is not None:
            if ran.size:
                way = {"color": style["color"], "linestyle": (0, (1, 1.5)), "linewidth": _PAGE.line_pt}
                axes.plot([ran[-1], first], [y, y], **way)
            axes.plot([first], [y], "x", color=style["color"], markersize=5, gid="oom")
    axes.set_yticks(range(len(lines)), [line_label(line) for line in lines], parse_math=False)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(left=0)
    _plain_axes(axes)
    axes.grid(True, axis="x", color="0.92", linewidth=0.5)
    label_resolutions(axes, resolution_labels(lines), _PAGE.font_pt * 0.93)
    axes.set_xlabel("Image size (pixels). Points: ran. ×: first out of memory", fontsize=_PAGE.font_pt)
    return figure


PICTURES: dict[str, Sequence[tuple[str, str, Callable[[Content], Figure | None]]]] = {
    "time": (
        ("stages", "Stacked stage latencies of each line", stages_picture),
        ("launch", "Launch-bound share of each stage", launch_picture),
    ),
    "scaling": (("fits", "Measured points and fitted curves over visual tokens", fits_picture),),
    "frontier": (("frontier", "The largest image that ran and the first out of memory", frontier_picture),),
}
"""By section of the report: a word for the file, what the picture shows, and who draws it."""


def _ordered(lines: Sequence[Line]) -> list[Line]:
    return [line for family in by_family(lines) for line in family]


def _legend(lines: Sequence[Line]) -> list[list[Line2D]]:
    styles = line_styles(lines)
    return [
        [
            Line2D([], [], label=line_label(line), **styles[line.key].line(_PAGE.line_pt, _PAGE.marker_pt))
            for line in family
        ]
        for family in by_family(lines)
    ]


def _grid(panels: int, groups: Sequence[list[Line2D]], notes: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, three to a row, and a legend under them."""
    figure = Figure(facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))
    text_rows = add_legend(figure, groups, notes, _PAGE) + 0.5
    across = 2 if panels == 4 else min(panels, _ACROSS)
    down = -(-panels // across)
    text_in = 1.35 * text_rows * _PAGE.font_pt / 72
    figure.set_size_inches(_PAGE.width_in, down * _PAGE.row_in + text_in)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.set_visible(False)
    for axes in grid[:panels]:
        _plain_axes(axes)
        axes.grid(True, axis="y", color="0.92", linewidth=0.5)
    return figure, grid[:panels]


def _plain_axes(axes: Axes) -> None:
    axes.tick_params(labelsize=_PAGE.font_pt * 0.93, width=0.6, length=2.5, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _stack(axes: Axes, stages: Sequence[str], line: dict[str, Any]) -> None:
    """One line's stages upon each other, a bar per resolution that was measured."""
    seconds = np.array(line["seconds"], dtype=np.float64)
    run = np.flatnonzero(np.isfinite(seconds).any(axis=0))
    heights = np.nan_to_num(seconds[:, run])
    unit, size = seconds_unit(float(heights.sum(axis=0).max()))
    tops = np.cumsum(heights / size, axis=0)
    middles = np.arange(run.size)
    for stage, below, top in zip(stages, np.vstack([np.zeros(run.size), tops]), tops, strict=False):
        left, right = middles - 0.375, middles + 0.375
        corners = np.array([(left, below), (left, top), (right, top), (right, below)])
        bars = PolyCollection(list(corners.transpose(2, 0, 1)), facecolor=STAGE_COLOURS[stage], gid=stage)
        axes.add_collection(bars, autolim=False)
    axes.set(xlim=(-0.6, run.size - 0.4), ylim=(0, 1.05 * tops[-1].max()))
    every = -(-run.size // 6)
    labelled = middles[(run.size - 1) % every :: every]
    axes.set_xticks(labelled, [line["labels"][k] for k in run[labelled]])
    axes.set_ylabel(f"Latency ({unit})", fontsize=_PAGE.font_pt)
