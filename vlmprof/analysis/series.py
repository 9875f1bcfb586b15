"""The data of the scaling figure, computed once and drawn by both matplotlib and the report's script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import (
    MOST_LINES,
    Along,
    Line,
    RunSamples,
    Statistic,
    count_lines,
    memory_column,
    split_lines,
)
from vlmprof.analysis.reference import another_device_in, load_reference, reference_title
from vlmprof.errors import UserError
from vlmprof.measure.statistics import Floats
from vlmprof.records import FAILED, Status

Unit = Literal["s", "bytes"]

QUANTITIES: dict[Unit, str] = {"s": "Latency", "bytes": "Memory"}


@dataclass(frozen=True)
class Series:
    """One line in one panel: a value for each cell of the line, shape (cells,), in the panel's unit."""

    line: Line
    """Image sizes, the first out of memory, and the properties that determine label and style."""
    values: Floats
    """Means or medians; NaN where nothing was measured."""
    low: Floats
    high: Floats
    """Ends of the 95 % interval; NaN without samples."""
    weight_bytes: Floats | None = None
    """The part of memory that is weights, if the panel shows it."""

    @property
    def measured(self) -> bool:
        """Whether there is anything to draw."""
        return bool(np.isfinite(self.values).any())


@dataclass(frozen=True)
class PanelData:
    """One panel of the scaling figure."""

    letter: str
    title: str
    unit: Unit
    """Unit of all values in the panel."""
    series: Sequence[Series]
    reference: Sequence[Series]
    """Published points, drawn pale in the background."""
    message: str | None
    """Why no cell has a value in this panel; None if one has."""
    shows_oom: bool


@dataclass(frozen=True)
class FigureData:
    """The scaling figure of a run: up to six panels against image size."""

    lines: Sequence[Line]
    lines_of_run: int
    """The number of lines, drawn or not."""
    panels: Sequence[PanelData]
    omitted: Sequence[PanelData]
    """Panels without a value. If there is no value in any of the six, they are in `panels` and say why."""
    along: Along
    """What image size means: `resolution` or `frames`."""
    ticks: Mapping[float, str]
    """Tick labels by size, ascending."""
    statistic: Statistic
    has_intervals: bool
    sums_two_measurements: bool
    """Whether any end-to-end latency is a sum because cells share an LLM."""
    failed: Mapping[Status, int]
    """The number of cells that ended in an error or a timeout, which are not drawn."""
    reference_title: str | None
    reference_on_another_device: bool


def scaling_figure(
    estimates: Estimates, lines: Sequence[Line], statistic: Statistic, reference: str | None = None
) -> FigureData:
    """Compute the scaling figure of these lines of a run, over the published points of `reference`.

    Raises `UserError` for an unknown reference, or one of images behind lines along frames.
    """
    cells = np.concatenate([line.places for line in lines])
    frame = estimates.frame.iloc[np.sort(cells)]
    behind = _reference_lines(reference, lines) if reference else []
    every = [_panel(*about, estimates, lines, behind, statistic) for about in _panels_for(frame)]
    empty = [panel.letter for panel in every if panel.message is not None and not panel.reference]
    omitted = empty if any(panel.message is None for panel in every) else []
    panels = [panel for panel in every if panel.letter not in omitted]
    shared = "llm_shared_from" in frame and bool(frame["llm_shared_from"].notna().any())
    return FigureData(
        lines=lines,
        lines_of_run=count_lines(estimates.frame),
        panels=panels,
        omitted=[panel for panel in every if panel.letter in omitted],
        along=lines[0].along,
        ticks=tick_labels(lines),
        statistic=statistic,
        has_intervals=any(np.isfinite(s.low).any() for panel in panels for s in panel.series),
        sums_two_measurements=shared,
        failed={status: int((frame["status"] == status).sum()) for status in FAILED},
        reference_title=reference_title(reference) if reference else None,
        reference_on_another_device=bool(reference and another_device_in(reference, frame)),
    )


def run_figure(
    frame: pd.DataFrame, samples: RunSamples | None, statistic: Statistic, reference: str | None = None
) -> FigureData:
    """Compute the scaling figure of a run, of at most `MOST_LINES` lines, from its rows and raw samples.

    Raises `UserError` for a frame without rows or an unknown reference.
    """
    lines = split_lines(frame, most=MOST_LINES)
    return scaling_figure(Estimates(frame, samples), lines, statistic, reference)


def tick_labels(lines: Iterable[Line]) -> dict[float, str]:
    """Return tick labels by size, ascending; the first of several shapes with the same pixel count."""
    labels: dict[float, str] = {}
    for line in lines:
        for size, label in zip(line.sizes.tolist(), line.size_labels, strict=True):
            labels.setdefault(size, label if line.along == "resolution" else f"{size:g}")
    return dict(sorted(labels.items()))


def _panels_for(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Return letter, title, column and empty-panel text of the six panels, in the paper's order."""
    no_gpu, nothing = "no GPU clock on this device", "not measured"
    memory = memory_column(frame)
    peak = {"peak_allocated_bytes": "allocated", "peak_rss_bytes": "resident"}.get(str(memory), "memory")
    return [
        ("a", "Host vision", "host_vision_s", nothing),
        ("b", "Host LLM", "host_prefill_s", nothing),
        ("c", "End-to-end", "end_to_end_s", nothing),
        ("d", "GPU vision", "gpu_vision_s", no_gpu),
        ("e", "GPU LLM", "gpu_prefill_s", no_gpu),
        ("f", f"Peak {peak}", memory or "peak_allocated_bytes", nothing),
    ]


def _panel(
    letter: str,
    title: str,
    column: str,
    when_empty: str,
    estimates: Estimates,
    lines: Sequence[Line],
    behind: Sequence[Line],
    statistic: Statistic,
) -> PanelData:
    points = estimates.points(column, statistic)
    series = []
    for line in lines:
        values, low, high = points[line.places].T
        weights = line.measured("weight_bytes") if column == "peak_rss_bytes" else None
        series.append(Series(line, values, low, high, weights))
    unknown = [np.full(line.sizes.size, np.nan) for line in behind]
    pale = [Series(line, line.measured(column), nan, nan) for line, nan in zip(behind, unknown, strict=True)]
    measured = any(one.measured for one in series)
    any_ok = any(line.ok.any() for line in lines)
    if not any_ok:
        every = "at every resolution" if lines[0].along == "resolution" else "with any number of frames"
        all_oom = all(line.first_oom is not None for line in lines)
        when_empty = f"out of memory {every}" if all_oom else "no cell was measured"
    return PanelData(
        letter=letter,
        title=title,
        unit=unit_of(column),
        series=series,
        reference=pale,
        message=None if measured else when_empty,
        shows_oom=measured or not any_ok,
    )


def _reference_lines(name: str, ours: Sequence[Line]) -> list[Line]:
    """Return the published lines of our backbones, or of all if it has none, up to our largest image."""
    points = load_reference(name)
    if ours[0].along == "frames":
        raise UserError(
            f"--reference: {name} has images of many sizes, and this run videos of one; leave it out"
        )
    shared = points[points["backbone"].isin({line.backbone for line in ours})]
    points = points if shared.empty else shared
    largest_px = max(float((line.rows["height_px"] * line.rows["width_px"]).max()) for line in ours)
    points = points[points["height_px"] * points["width_px"] <= largest_px]
    lines = split_lines(points) if len(points) else []
    return [Line(line.backbone, {"reference": name}, line.rows, line.places) for line in lines]


def unit_of(column: str) -> Unit:
    """Return the unit of a run's column, from its name."""
    return "bytes" if column.endswith("_bytes") else "s"
