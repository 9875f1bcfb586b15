"""The scaling figure of a run: six panels against image size.

It is drawn from rows and samples alone, through matplotlib's object interface, so that it needs no
display and leaves no global state behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from vlmprof.analysis.frames import (
    Line,
    Samples,
    Statistic,
    any_measured,
    split_lines,
    why_nothing_measured,
)
from vlmprof.analysis.reference import another_device_in, load_reference, reference_title
from vlmprof.errors import UserError, unknown
from vlmprof.records import Status
from vlmprof.render.figures.layout import PAGES, Page, add_legend
from vlmprof.render.figures.panel import Drawing, Panel, draw_panel
from vlmprof.render.figures.style import LineStyle, by_family, line_styles
from vlmprof.render.figures.ticks import label_resolutions, resolution_labels
from vlmprof.render.labels import line_label

FORMATS = ("png", "pdf", "svg")


_NO_GPU = "no GPU clock\non this device"


def panels_for(frame: pd.DataFrame) -> tuple[Panel, ...]:
    """The six panels in the paper's order, for what this run's machine could measure."""
    if any_measured(frame, "peak_allocated_bytes") or not any_measured(frame, "peak_rss_bytes"):
        memory = Panel("f", "Peak allocated", "peak_allocated_bytes", "Memory", "not measured")
    else:
        memory = Panel("f", "Peak resident", "peak_rss_bytes", "Memory", "not measured", "weight_bytes")
    return (
        Panel("a", "Host vision", "host_vision_s", "Latency", "not measured"),
        Panel("b", "Host LLM", "host_prefill_s", "Latency", "not measured"),
        Panel("c", "End-to-end", "end_to_end_s", "Latency", "not measured"),
        Panel("d", "GPU vision", "gpu_vision_s", "Latency", _NO_GPU),
        Panel("e", "GPU LLM", "gpu_prefill_s", "Latency", _NO_GPU),
        memory,
    )


def six_panel(
    frame: pd.DataFrame,
    samples: Samples | None = None,
    *,
    statistic: Statistic = "mean",
    log: bool = False,
    reference: str | None = None,
    width: str = "two-column",
    note: str | None = None,
) -> Figure:
    """The six-panel figure of a run.

    Args:
        frame: the rows of a run, as `vlmprof.store.load_frame` gives them.
        samples: raw values by cell and column; with them, every point carries its 95 % interval.
        statistic: `mean`, or `median` where there are samples.
        log: logarithmic axes, both of them; otherwise both are linear and y starts at zero.
        reference: published points to lay pale behind the run's, by name (`kuo2026`): those of the
            run's own backbones (of all, where the run has none of them) up to its largest image.
        width: `one-column` (3.5 in) or `two-column` (7.16 in).
        note: a sentence of the caller's to print above the legend, before the figure's own.

    Raises `UserError` for a frame without rows, an unknown reference or width.
    """
    if width not in PAGES:
        raise unknown("figure width", width, PAGES)
    page = PAGES[width]
    lines = split_lines(frame)
    behind = _reference_lines(reference, lines) if reference else []
    drawing = Drawing(
        lines, line_styles(behind) | line_styles(lines), samples, statistic, behind, log,
        page.font_pt, page.line_pt, page.marker_pt,
    )  # fmt: skip
    panels = panels_for(frame)
    notes = [*([note] if note else []), *_notes(frame, drawing, reference)]
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    figure = Figure(dpi=200, facecolor="white", layout=engine)
    text_rows = add_legend(figure, _legend_groups(drawing, panels), notes, page) + 0.5
    figure.set_size_inches(page.width_in, 2 * page.row_in + 1.35 * text_rows * page.font_pt / 72)
    grid = figure.subplots(2, 3)
    ticks = resolution_labels(lines)
    for axes, panel in zip(grid.flat, panels, strict=True):
        _prepare(axes, ticks, log, page)
        draw_panel(axes, panel, drawing)
    figure.align_ylabels(grid)
    return figure


def draw_reference(name: str = "kuo2026", *, log: bool = False, width: str = "two-column") -> Figure:
    """The published figure itself, drawn from its points by the plotting of this package."""
    note = f"{reference_title(name)}, drawn from its published points."
    return six_panel(load_reference(name), log=log, width=width, note=note)


def save_six_panel(
    frame: pd.DataFrame,
    folder: Path | str,
    samples: Samples | None = None,
    *,
    formats: Sequence[str] = ("png", "pdf"),
    stem: str = "six_panel",
    statistic: Statistic = "mean",
    log: bool = False,
    reference: str | None = None,
    width: str = "two-column",
) -> list[Path]:
    """Draw the figure once and write it to `folder/stem.FORMAT` for each format; the paths written.

    The same rows give the same file, byte for byte. Raises `UserError` as `six_panel` does, for a frame
    without a measured cell, an unknown format, or a folder that cannot be written.
    """
    if (why := why_nothing_measured(frame)) is not None:
        raise UserError(f"there is no figure to draw of this run: {why}")
    figure = six_panel(frame, samples, statistic=statistic, log=log, reference=reference, width=width)
    return save_figure(figure, Path(folder), stem, formats)


def save_figure(
    figure: Figure, folder: Path, stem: str, formats: Sequence[str], dpi: int = 300
) -> list[Path]:
    """Write a figure in each format, with embedded fonts and no date; the paths written.

    Raises `UserError` for an unknown format or a folder that cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", name, FORMATS)
    paths = [folder / f"{stem}.{name}" for name in formats]
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "vlmprof"}):
            for path, name in zip(paths, formats, strict=True):
                figure.savefig(path, format=name, dpi=dpi, metadata=undated[name])
    except OSError as problem:
        raise UserError(f"cannot write the figure to {folder}: {problem.strerror or problem}") from problem
    return paths


def point_note(statistic: Statistic, frame: pd.DataFrame) -> str:
    """What points and bars are, in words."""
    words = "Points: medians. Bars: their 95 % intervals."
    if statistic == "mean":
        words = "Bars: 95 % interval of the mean."
    shared = "llm_shared_from" in frame and frame["llm_shared_from"].notna().any()
    return f"{words} End-to-end of cells that share an LLM: sums of two measurements." if shared else words


def _prepare(axes: Axes, ticks: dict[float, str], log: bool, page: Page) -> None:
    pixels = np.array(sorted(ticks))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=page.font_pt * 0.93, width=0.6, length=2.5, pad=2)
    axes.tick_params(which="minor", width=0.4, length=1.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(pixels[0] / 1.4, pixels[-1] * 1.4)
    else:
        axes.set_xlim(0, pixels[-1] * (1.06 if pixels.size > 1 else 2.0))
    label_resolutions(axes, ticks, page.font_pt * 0.93)
    axes.set_xlabel("Image size (pixels)", fontsize=page.font_pt, labelpad=2)


def _reference_lines(name: str, ours: Sequence[Line]) -> list[Line]:
    largest = max(float(line.pixels[-1]) for line in ours)
    every = split_lines(load_reference(name))
    shared = [line for line in every if line.backbone in {our.backbone for our in ours}] or every
    lines = []
    for line in shared:
        rows = line.rows[line.rows["pixels"] <= largest].reset_index(drop=True)
        if not rows.empty:
            lines.append(Line(line.backbone, {"reference": name}, rows))
    return lines


def _legend_groups(drawing: Drawing, panels: Sequence[Panel]) -> list[list[Line2D]]:
    """Legend entries by family, then those that explain the marks."""

    def entry(style: LineStyle, label: str, **changed: object) -> Line2D:
        return Line2D([], [], label=label, **(style.line(drawing.line_pt, drawing.marker_pt) | changed))

    groups = [
        [entry(drawing.styles[line.key], line_label(line)) for line in family]
        for family in by_family(drawing.lines)
    ]
    grey = LineStyle("0.3", (0, (1, 1.5)), "x", "full")
    marks = []
    if any(line.first_oom_pixels is not None for line in drawing.lines):
        marks.append(entry(grey, "out of memory", markeredgewidth=max(drawing.line_pt, 0.9)))
    if any(panel.level_column for panel in panels):
        marks.append(entry(grey, "weights alone", linestyle="none", marker="_", markersize=8.0))
    return [*groups, marks] if marks else groups


def _notes(frame: pd.DataFrame, drawing: Drawing, reference: str | None) -> list[str]:
    """What a reader of the figure has to be told in words, a line each."""
    notes = []
    if reference and drawing.behind:
        elsewhere = another_device_in(reference, frame)
        notes.append(f"Pale, behind: {reference_title(reference)}{', another device' if elsewhere else ''}.")
    if any(np.isfinite(drawing.points(line, "end_to_end_s")[1]).any() for line in drawing.lines):
        notes.append(point_note(drawing.statistic, frame))
    counts = {
        words: int((frame["status"] == status).sum())
        for status, words in ((Status.ERROR, "failed"), (Status.TIMEOUT, "timed out"))
    }
    missing = [f"{count} {words}" for words, count in counts.items() if count]
    if missing:
        notes.append(f"Cells not drawn: {', '.join(missing)}.")
    return notes
