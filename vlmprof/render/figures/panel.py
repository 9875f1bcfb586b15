"""One panel of the scaling figure: lines, intervals and out-of-memory marks.

                 ×        first resolution out of memory, at the top on any scale
               ∙´
         ┬   ∙´
    ┬──●─┴─●              mean or median, with its 95 % interval if there are samples
 ●──┴
─┴──┴──────┴────┴──
512² 1024² 2048² 3072²    positions by the logarithm of the number of pixels, or proportional to it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import ScaledTranslation

from vlmprof.analysis.frames import Line
from vlmprof.analysis.series import PanelData, Series
from vlmprof.render.figures.layout import Page, label_quantity
from vlmprof.render.figures.style import LineStyle
from vlmprof.render.figures.ticks import plain_log_labels

_CROSS_STEP_PT = 4.5
_CROSS_BAND_PT = 20.0
_PALE = 0.35
LEVEL_PT = 0.6
"""Width of the lines that show the weights' part of memory."""
_ONE_LINE = 20
"""Characters of a message that fit on one line of a panel."""


@dataclass(frozen=True)
class Look:
    """The style shared by all panels of a figure."""

    styles: Mapping[tuple[str, ...], LineStyle]
    """Line styles by the lines' keys."""
    page: Page
    log: bool


def draw_panel(axes: Axes, panel: PanelData, look: Look) -> None:
    """Draw a panel into empty axes and label the y axis with its unit."""
    drawn = [series for series in panel.series if series.measured]
    behind = [series for series in panel.reference if series.measured]
    largest = max((float(np.nanmax(series.values)) for series in (*drawn, *behind)), default=1.0)
    axes.set_title(f"({panel.letter}) {panel.title}", fontsize=look.page.font_pt, pad=6)
    size = label_quantity(axes, panel.unit, largest, look.page)
    if panel.message is not None:
        _say(axes, panel.message, look.page.font_pt)
    if not drawn and not behind:
        axes.set_yticks([])
    for series in behind:
        _draw_pale(axes, series, size, look)
    for series in drawn:
        _draw_line(axes, series, size, look)
    # memory is read against the capacity of a device, so it starts at 0
    log = look.log and panel.unit == "s" and largest > 0
    if log and (drawn or behind):
        axes.set_yscale("log")
        plain_log_labels(axes.yaxis)
    heights = _cross_heights([series.line for series in panel.series]) if panel.shows_oom else {}
    _leave_room(axes, log, max(heights.values(), default=0.0))
    for series in panel.series:
        if series.line.key in heights:
            _draw_oom(axes, series, size, look, heights[series.line.key])


def _say(axes: Axes, words: str, font_pt: float) -> None:
    if len(words) > _ONE_LINE:
        spaces = [i for i, character in enumerate(words) if character == " "]
        at = min(spaces, key=lambda i: abs(i - len(words) / 2))
        words = f"{words[:at]}\n{words[at + 1 :]}"
    axes.text(
        0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=font_pt, color="0.35",
        zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip


def _draw_pale(axes: Axes, series: Series, size: float, look: Look) -> None:
    line = series.line
    style = look.styles[line.key].line(look.page.line_pt * 0.8, look.page.marker_pt * 0.8)
    values = series.values[line.tried] / size
    axes.plot(line.sizes[line.tried], values, **style, alpha=_PALE, zorder=1.5, gid="reference")


def _draw_line(axes: Axes, series: Series, size: float, look: Look) -> None:
    line, style = series.line, look.styles[series.line.key]
    looks = style.line(look.page.line_pt, look.page.marker_pt)
    axes.plot(line.sizes[line.tried], series.values[line.tried] / size, **looks, zorder=3, gid="measured")
    if series.weight_bytes is not None:
        alone = "_" if line.sizes.size == 1 else ""
        axes.plot(
            line.sizes, series.weight_bytes / size, linewidth=LEVEL_PT, marker=alone, color=style.colour,
            markersize=4 * look.page.marker_pt, zorder=2.5, gid="level",
        )  # fmt: skip
    known = np.isfinite(series.values) & np.isfinite(series.low) & np.isfinite(series.high)
    if known.any():
        below = np.maximum(series.values - series.low, 0.0)[known] / size
        above = np.maximum(series.high - series.values, 0.0)[known] / size
        axes.errorbar(
            line.sizes[known], series.values[known] / size, yerr=[below, above], fmt="none",
            ecolor=style.colour, elinewidth=0.8, capsize=1.6, capthick=0.6, zorder=3.5,
        )  # fmt: skip


def _cross_heights(lines: Sequence[Line]) -> dict[tuple[str, ...], float]:
    """Return the distance of each line's × from the top in points; marks at the same x are stacked."""
    stacks: dict[float, list[tuple[str, ...]]] = {}
    for line in lines:
        if line.first_oom is not None:
            stacks.setdefault(line.first_oom.size, []).append(line.key)
    heights: dict[tuple[str, ...], float] = {}
    for keys in stacks.values():
        step = min(_CROSS_STEP_PT, _CROSS_BAND_PT / max(len(keys) - 1, 1))
        heights |= {key: place * step for place, key in enumerate(keys)}
    return heights


def _leave_room(axes: Axes, log: bool, below_top_pt: float) -> None:
    """Set y limits that keep the highest value below the stack of ×; linear axes start at 0."""
    height_pt = axes.get_window_extent().height * 72 / axes.figure.dpi
    share = min((below_top_pt + 6.0) / max(height_pt, 30.0), 0.5)
    low, high = axes.dataLim.intervaly
    if not np.isfinite([low, high]).all():
        low, high = 0.0, 1.0
    elif log and low <= 0 < high:  # the interval of a mean may reach 0, where a logarithmic axis does not
        low = float(axes.dataLim.minposy)
    if log and low > 0:
        margin = max(np.log(high / low), np.log(4.0))
        axes.set_ylim(low * np.exp(-0.07 * margin), high * np.exp(margin * share / (1 - share)))
    else:
        axes.set_ylim(0.0, (high if high > 0 else 1.0) / (1 - share))


def _draw_oom(axes: Axes, series: Series, size: float, look: Look, below_top_pt: float) -> None:
    """Draw an × at the top of the first resolution out of memory, with a dotted line from the last point."""
    line = series.line
    if line.first_oom is None:
        return
    at, colour = line.first_oom.size, look.styles[line.key].colour
    top = axes.get_xaxis_transform() + ScaledTranslation(0, -below_top_pt / 72, axes.figure.dpi_scale_trans)
    before = np.flatnonzero(np.isfinite(series.values) & (line.sizes < at))
    if before.size:
        last = before[-1]
        way = ConnectionPatch(
            (float(line.sizes[last]), float(series.values[last] / size)), (at, 1.0), axes.transData, top,
            color=colour, linestyle=(0, (1, 1.5)), linewidth=look.page.line_pt, zorder=2, gid="oom-way",
        )  # fmt: skip
        way.set_in_layout(False)
        axes.add_artist(way)
    axes.plot(
        [at], [1.0], transform=top, linestyle="none", marker="x", color=colour,
        markersize=look.page.marker_pt * 1.25, markeredgewidth=max(look.page.line_pt, 0.9),
        clip_on=False, zorder=4, gid="oom",
    )  # fmt: skip
