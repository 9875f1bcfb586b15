"""One panel of the scaling figure: what it shows, in which unit, and how its lines are drawn.

                 ×        first resolution out of memory, at the top whatever the scale
               ∙´
         ┬   ∙´
    ┬──●─┴─●              mean or median, with its 95 % interval where samples are at hand
 ●──┴
─┴──┴──────┴────┴──
512² 1024² 2048² 3072²    positions proportional to the number of pixels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import ScaledTranslation

from vlmprof.analysis.frames import Line, Samples, Statistic, points
from vlmprof.records import Status
from vlmprof.render.figures.style import LineStyle
from vlmprof.render.figures.ticks import plain_log_labels

GIB = 2**30
_CROSS_STEP_PT = 4.5
_CROSS_BAND_PT = 20.0
_PALE = 0.35


@dataclass(frozen=True)
class Panel:
    """What one panel shows."""

    letter: str
    title: str
    column: str
    quantity: str
    """`Latency` or `Memory`, as the axis is labelled."""
    when_empty: str
    """What the panel says when some cell was measured but this column was not."""
    level_column: str | None = None
    """A column drawn as thin level marks beside the points, such as the weights within the memory."""

    def unit(self, largest: float) -> tuple[str, float]:
        """The unit in which values up to `largest` (s or bytes) read best, and its size."""
        if self.quantity == "Memory":
            return "GiB", GIB
        return next(
            ((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if largest >= size), ("µs", 1e-6)
        )


@dataclass(frozen=True)
class Drawing:
    """What is drawn into every panel alike; widths and sizes in points."""

    lines: Sequence[Line]
    styles: Mapping[tuple[str, ...], LineStyle]
    samples: Samples | None
    statistic: Statistic
    behind: Sequence[Line]
    """Lines of a reference, drawn pale behind the others."""
    log: bool
    font_pt: float
    line_pt: float
    marker_pt: float

    def points(self, line: Line, column: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Values and intervals of one of `lines`, as `analysis.frames.points` gives them."""
        return points(line, column, self.samples, self.statistic)


def draw_panel(axes: Axes, panel: Panel, drawing: Drawing) -> None:
    """Draw a panel's lines, intervals and OOM marks into empty axes, and label its y axis with its unit."""
    drawn = [line for line in drawing.lines if np.isfinite(line.measured(panel.column)).any()]
    behind = [line for line in drawing.behind if np.isfinite(line.measured(panel.column)).any()]
    any_ok = any((line.rows["status"] == Status.OK).any() for line in drawing.lines)
    values = [drawing.points(line, panel.column)[0] for line in drawn]
    values += [line.measured(panel.column) for line in behind]
    unit, size = panel.unit(max((float(np.nanmax(each)) for each in values), default=1.0))
    axes.set_title(f"({panel.letter}) {panel.title}", fontsize=drawing.font_pt, pad=6)
    axes.set_ylabel(f"{panel.quantity} ({unit})", fontsize=drawing.font_pt)
    if not drawn:
        _say(axes, panel.when_empty if any_ok else _nothing_measured(drawing.lines), drawing.font_pt)
    if not drawn and not behind:
        axes.set_yticks([])
    for line in behind:
        _draw_pale(axes, line, panel, size, drawing)
    for line in drawn:
        _draw_line(axes, line, panel, size, drawing)
    if drawing.log and (drawn or behind):
        axes.set_yscale("log")
        plain_log_labels(axes.yaxis)
    if drawn or not any_ok:
        heights = _cross_heights(drawing.lines)
        _leave_room(axes, drawing.log, max(heights.values(), default=0.0))
        for line in drawing.lines:
            if line.key in heights:
                _draw_oom(axes, line, panel, size, drawing, heights[line.key])
    else:
        _leave_room(axes, drawing.log, 0.0)


def _nothing_measured(lines: Sequence[Line]) -> str:
    if all(line.first_oom_pixels is not None for line in lines):
        return "out of memory at\nevery resolution"
    return "no cell was measured"


def _say(axes: Axes, words: str, font_pt: float) -> None:
    axes.text(
        0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=font_pt, color="0.35",
        zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip


def _tried(line: Line) -> npt.NDArray[np.bool_]:
    """The rows that a line joins: a failed cell leaves a gap, one that was never tried does not."""
    return (line.rows["status"] != Status.SKIPPED).to_numpy(dtype=bool)


def _draw_pale(axes: Axes, line: Line, panel: Panel, size: float, drawing: Drawing) -> None:
    tried, values = _tried(line), line.measured(panel.column)
    style = drawing.styles[line.key].line(drawing.line_pt * 0.8, drawing.marker_pt * 0.8)
    axes.plot(line.pixels[tried], values[tried] / size, **style, alpha=_PALE, zorder=1.5, gid="reference")


def _draw_line(axes: Axes, line: Line, panel: Panel, size: float, drawing: Drawing) -> None:
    style = drawing.styles[line.key]
    tried, values = _tried(line), drawing.points(line, panel.column)[0]
    looks = style.line(drawing.line_pt, drawing.marker_pt)
    axes.plot(line.pixels[tried], values[tried] / size, **looks, zorder=3, gid="measured")
    if panel.level_column is not None:
        levels = line.measured(panel.level_column) / size
        axes.plot(
            line.pixels, levels, linewidth=0.4, marker="_", color=style.colour, markeredgewidth=0.7,
            markersize=1.8 * drawing.marker_pt, zorder=2.5, gid="level",
        )  # fmt: skip
    _draw_intervals(axes, line, panel, size, drawing)


def _draw_intervals(axes: Axes, line: Line, panel: Panel, size: float, drawing: Drawing) -> None:
    values, ends = drawing.points(line, panel.column)
    drawn = np.isfinite(values) & np.isfinite(ends).all(axis=1)
    if not drawn.any():
        return
    below = np.maximum(values - ends[:, 0], 0.0)[drawn] / size
    above = np.maximum(ends[:, 1] - values, 0.0)[drawn] / size
    axes.errorbar(
        line.pixels[drawn], values[drawn] / size, yerr=[below, above], fmt="none",
        ecolor=drawing.styles[line.key].colour, elinewidth=0.8, capsize=1.6, capthick=0.6, zorder=3.5,
    )  # fmt: skip


def _cross_heights(lines: Sequence[Line]) -> dict[tuple[str, ...], float]:
    """By how many points each line's × hangs below the top: those that share an x are stacked."""
    stacks: dict[float, list[tuple[str, ...]]] = {}
    for line in lines:
        if line.first_oom_pixels is not None:
            stacks.setdefault(line.first_oom_pixels, []).append(line.key)
    heights: dict[tuple[str, ...], float] = {}
    for keys in stacks.values():
        step = min(_CROSS_STEP_PT, _CROSS_BAND_PT / max(len(keys) - 1, 1))
        heights |= {key: place * step for place, key in enumerate(keys)}
    return heights


def _leave_room(axes: Axes, log: bool, below_top_pt: float) -> None:
    """Set y limits that keep the highest value under the stack of ×; linear axes start at zero."""
    height_pt = axes.get_window_extent().height * 72 / axes.figure.dpi
    share = min((below_top_pt + 6.0) / max(height_pt, 30.0), 0.5)
    low, high = axes.dataLim.intervaly
    if not np.isfinite([low, high]).all():
        low, high = 0.0, 1.0
    if log and low > 0:
        margin = max(np.log(high / low), np.log(4.0))
        axes.set_ylim(low * np.exp(-0.07 * margin), high * np.exp(margin * share / (1 - share)))
    else:
        axes.set_ylim(0.0, (high if high > 0 else 1.0) / (1 - share))


def _draw_oom(
    axes: Axes, line: Line, panel: Panel, size: float, drawing: Drawing, below_top_pt: float
) -> None:
    """An × at the top over the first resolution out of memory, and a dotted way to it from the last point."""
    at = line.first_oom_pixels
    if at is None:
        return
    colour = drawing.styles[line.key].colour
    top = axes.get_xaxis_transform() + ScaledTranslation(0, -below_top_pt / 72, axes.figure.dpi_scale_trans)
    values = drawing.points(line, panel.column)[0]
    before = np.flatnonzero(np.isfinite(values) & (line.pixels < at))
    if before.size:
        last = before[-1]
        way = ConnectionPatch(
            (float(line.pixels[last]), float(values[last] / size)), (at, 1.0), axes.transData, top,
            color=colour, linestyle=(0, (1, 1.5)), linewidth=drawing.line_pt, zorder=2, gid="oom-way",
        )  # fmt: skip
        way.set_in_layout(False)
        axes.add_artist(way)
    axes.plot(
        [at], [1.0], transform=top, linestyle="none", marker="x", color=colour,
        markersize=drawing.marker_pt * 1.25, markeredgewidth=max(drawing.line_pt, 0.9),
        clip_on=False, zorder=4, gid="oom",
    )  # fmt: skip
