"""The figure of time to first token against image size or frames, a panel for each LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmprof.analysis.costs import time_to_first_token
from vlmprof.analysis.frames import Line, LineName, split_lines
from vlmprof.analysis.series import tick_labels
from vlmprof.render.figures.layout import PAGES, family_entries, panel_grid, title_panel
from vlmprof.render.figures.style import LineStyle, line_styles
from vlmprof.render.figures.ticks import plain_log_labels, scale_sizes
from vlmprof.render.labels import SIZE_TITLES, estimated_note, value_label
from vlmprof.units import seconds_unit

_MOST_PER_PANEL, _MOST_PANELS = 12, 12
_FIRST = ("llm", "connector")
"""Axes that become panels before others."""
_PAGE = PAGES["two-column"]

Key = tuple[str, ...]


def ttft_figure(frame: pd.DataFrame, estimated_for: str | None = None) -> Figure:
    """Draw TTFT against image size: a line per encoder and tiling, a panel per LLM, and per further axis
    until panels are readable.

    Raises `UserError` if the frame has no rows.
    """
    lines = split_lines(frame)
    axes_of_panels = _panel_axes(lines)
    panels: dict[Key, list[Line]] = {}
    for line in lines:
        panels.setdefault(tuple(line.setting[axis] for axis in axes_of_panels), []).append(line)
    named = {
        line.key: LineName(line.backbone, {a: v for a, v in line.setting.items() if a not in axes_of_panels})
        for line in lines
    }
    drawn = list({name.key: name for name in named.values()}.values())[: _MOST_PER_PANEL * 2]
    notes = ["TTFT: time from the image to the first token, vision included."]
    if estimated_for is not None:
        notes.insert(0, estimated_note(estimated_for))
    if hidden := len({name.key for name in named.values()}) - len(drawn):
        notes.append(f"{hidden} more configurations are not drawn.")
    legend = family_entries(drawn, _PAGE.line_pt, _PAGE.marker_pt)
    shown = list(panels.items())[:_MOST_PANELS]
    figure, grid = panel_grid(len(shown), legend, notes, _PAGE, row_share=1.25)
    styles = line_styles(drawn)
    for axes, (values, own) in zip(grid, shown, strict=True):
        _draw(axes, [(line, styles[named[line.key].key]) for line in own if named[line.key].key in styles])
        title = " · ".join(value_label(axis, v) for axis, v in zip(axes_of_panels, values, strict=True))
        title_panel(axes, title, _PAGE, len(shown))
    return figure


def _panel_axes(lines: Sequence[Line]) -> list[str]:
    """Return the axes whose values get panels of their own."""
    values: Mapping[str, set[str]] = {
        axis: {line.setting[axis] for line in lines} for axis in lines[0].setting
    }
    chosen: list[str] = []
    panels = 1
    for axis in sorted(values, key=lambda axis: _FIRST.index(axis) if axis in _FIRST else len(_FIRST)):
        per_panel = len(lines) / panels
        if (axis == "llm" or per_panel > _MOST_PER_PANEL) and panels * len(values[axis]) <= _MOST_PANELS:
            chosen.append(axis)
            panels *= len(values[axis])
    return chosen


def _draw(axes: Axes, lines: Sequence[tuple[Line, LineStyle]]) -> None:
    seconds = [np.where(line.ok, time_to_first_token(line.rows), np.nan) for line, _ in lines]
    known = np.concatenate([own[np.isfinite(own)] for own in seconds])
    unit, size = seconds_unit(float(known.max())) if known.size else ("s", 1.0)
    for (line, style), own in zip(lines, seconds, strict=True):
        axes.plot(line.sizes, own / size, **style.line(_PAGE.line_pt, _PAGE.marker_pt), gid="ttft")
    axes.set_yscale("log")
    axes.grid(True, axis="y", color="0.92", linewidth=0.5)
    axes.set_ylabel(f"TTFT ({unit})", fontsize=_PAGE.font_pt)
    scale_sizes(axes, tick_labels(line for line, _ in lines), _PAGE.small_pt)
    axes.set_xlabel(SIZE_TITLES[lines[0][0].along], fontsize=_PAGE.font_pt, labelpad=2)
    plain_log_labels(axes.yaxis)
