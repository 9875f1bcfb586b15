"""The scaling figure of a run: six panels against image size.

It is drawn only from `FigureData`, with matplotlib's object interface, so it needs no display and changes no
global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlmprof.analysis.frames import RunSamples, Statistic, why_nothing_measured
from vlmprof.analysis.reference import load_reference, reference_title
from vlmprof.analysis.series import FigureData, run_figure
from vlmprof.errors import UserError
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.layout import Page, family_entries, page_of, panel_grid
from vlmprof.render.figures.panel import LEVEL_PT, Look, draw_panel
from vlmprof.render.figures.style import LineStyle, line_styles
from vlmprof.render.figures.ticks import scale_sizes
from vlmprof.render.labels import SIZE_TITLES, STATUS_WORDS, omitted_note, point_note


def six_panel(
    frame: pd.DataFrame,
    samples: RunSamples | None = None,
    *,
    statistic: Statistic = "mean",
    log: bool = True,
    reference: str | None = None,
    width: str = "two-column",
) -> Figure:
    """Draw the six-panel figure of a run. Panels in which nothing was measured are left out.

    Args:
        frame: the rows of a run, from `vlmprof.store.load_frame`.
        samples: raw values by cell and column; with them, every point has its 95 % interval.
        statistic: `mean`, or `median` for rows with samples.
        log: draw sizes and latencies on logarithmic axes. Otherwise, positions are proportional to the
            number of pixels, or of frames, and latencies start at 0, as memory always does.
        reference: published points to draw pale in the background, by name (`kuo2026`): those of the run's
            backbones (or of all, if the run has none of them) up to its largest image.
        width: `one-column` (3.5 in) or `two-column` (7.16 in).

    Raises `UserError` for a frame without rows, an unknown reference or width.
    """
    page_of(width)
    return draw_six_panel(run_figure(frame, samples, statistic, reference), log=log, width=width)


def draw_reference(name: str = "kuo2026", *, log: bool = True, width: str = "two-column") -> Figure:
    """Draw the published figure from its points, in the style of this package.

    Raises `UserError` for an unknown reference or width.
    """
    note = f"{reference_title(name)}, drawn from its published points."
    return draw_six_panel(run_figure(load_reference(name), None, "mean"), log=log, width=width, note=note)


def draw_six_panel(
    data: FigureData, *, log: bool = True, width: str = "two-column", note: str | None = None
) -> Figure:
    """Draw the panels of the figure; `note` is a sentence above the legend, before the figure's own notes.

    Raises `UserError` for an unknown width.
    """
    page = page_of(width)
    behind = [series.line for series in data.panels[0].reference]
    look = Look(line_styles(behind) | line_styles(data.lines), page, log)
    notes = [*([note] if note else []), *_notes(data)]
    legend = _legend_groups(data, page)
    figure, grid = panel_grid(len(data.panels), legend, notes, page, spacing=0.03)
    for axes, panel in zip(grid, data.panels, strict=True):
        _prepare(axes, data, log, page)
        draw_panel(axes, panel, look)
    figure.align_ylabels(grid)
    return figure


def save_six_panel(
    frame: pd.DataFrame,
    folder: Path | str,
    samples: RunSamples | None = None,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    stem: str = "six_panel",
    statistic: Statistic = "mean",
    log: bool = True,
    reference: str | None = None,
    width: str = "two-column",
) -> list[Path]:
    """Draw the figure once and write it to `folder/stem.FORMAT` for each format; return the paths.

    The same rows give the same file, byte for byte. Raises `UserError` as `six_panel` does, and for a frame
    without a measured cell, an unknown format, or a folder that is not writable.
    """
    if (why := why_nothing_measured(frame)) is not None:
        raise UserError(f"this run has nothing to draw: {why}")
    figure = six_panel(frame, samples, statistic=statistic, log=log, reference=reference, width=width)
    return save_figure(figure, Path(folder), stem, formats)


def _prepare(axes: Axes, data: FigureData, log: bool, page: Page) -> None:
    axes.grid(True, axis="y", color="0.9", linewidth=0.5)
    axes.tick_params(pad=2)
    axes.tick_params(which="minor", width=0.4, length=1.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    scale_sizes(axes, data.ticks, page.small_pt, log)
    axes.set_xlabel(SIZE_TITLES[data.along], fontsize=page.font_pt, labelpad=2)


def _legend_groups(data: FigureData, page: Page) -> list[list[Line2D]]:
    """Return legend entries by family, then those that explain the marks."""

    def entry(label: str, **changed: object) -> Line2D:
        grey = LineStyle("0.3", (0, (1, 1.5)), "x", "full").line(page.line_pt, page.marker_pt)
        return Line2D([], [], label=label, **(grey | changed))

    marks = []
    if any(line.first_oom is not None for line in data.lines):
        marks.append(entry("out of memory", markeredgewidth=max(page.line_pt, 0.9)))
    if any(series.weight_bytes is not None for panel in data.panels for series in panel.series):
        marks.append(entry("weights alone", linestyle="-", marker="", linewidth=LEVEL_PT))
    groups = family_entries(data.lines, page.line_pt, page.marker_pt)
    return [*groups, marks] if marks else groups


def _notes(data: FigureData) -> list[str]:
    """Return the notes that a reader of the figure needs."""
    notes = []
    if data.lines_of_run > len(data.lines):
        notes.append(f"The first {len(data.lines)} of {data.lines_of_run:,} lines, backbones in turn.")
    if any(panel.reference for panel in data.panels):
        elsewhere = ", another device" if data.reference_on_another_device else ""
        notes.append(f"Pale, behind: {data.reference_title}{elsewhere}.")
    if data.has_intervals:
        notes.append(point_note(data))
    missing = [f"{count} {STATUS_WORDS[status]}" for status, count in data.failed.items() if count]
    if missing:
        notes.append(f"Cells not drawn: {', '.join(missing)}.")
    if data.omitted:
        notes.append(omitted_note(data))
    return notes
