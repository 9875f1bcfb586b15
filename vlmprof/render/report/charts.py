"""The numbers and looks of a report's charts, as JSON that `report.js` draws with plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vlmprof.analysis.frames import Line, Samples, Statistic, any_measured, points, show_resolution
from vlmprof.analysis.scaling import fit_line
from vlmprof.records import STAGES, Status
from vlmprof.render.figures.panel import Panel
from vlmprof.render.figures.six_panel import panels_for, point_note
from vlmprof.render.figures.style import STAGE_COLOURS, LineStyle, by_family, line_styles
from vlmprof.render.figures.ticks import resolution_labels
from vlmprof.render.labels import backbone_words, line_label
from vlmprof.render.tables.cells import status_words
from vlmprof.render.tables.scaling import scaled_columns
from vlmprof.render.tables.sheet import column_values
from vlmprof.render.tables.stages import gpu_waiting, host_over_gpu

_CURVE_POINTS = 16
"""Points of a fitted curve that are evenly spaced, and as many in the logarithm: smooth on either axis."""

_SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "p": "pentagon",
    "P": "cross", "X": "x", "<": "triangle-left", ">": "triangle-right", "h": "hexagon", "d": "diamond-tall",
    "*": "star", "8": "octagon",
}  # fmt: skip


def chart_data(
    frame: pd.DataFrame, lines: Sequence[Line], samples: Samples, statistic: Statistic
) -> dict[str, Any]:
    """What the charts need: lines, their looks, points, intervals, OOM, stacked stages, fitted curves."""
    ordered = [line for family in by_family(lines) for line in family]
    styles = line_styles(ordered)
    return {
        "lines": [_looks(line, styles[line.key]) for line in ordered],
        "points": point_note(statistic, frame),
        "resolutions": [{"pixels": at, "label": label} for at, label in resolution_labels(ordered).items()],
        "panels": [_panel(panel, frame, ordered, samples, statistic) for panel in panels_for(frame)],
        "stacks": _stacks(frame, ordered),
        "fits": _fits(frame, ordered),
    }


def _looks(line: Line, style: LineStyle) -> dict[str, Any]:
    dash = (
        "solid" if isinstance(style.dash, str) else ",".join(f"{2 * length:g}px" for length in style.dash[1])
    )
    return {
        "label": line_label(line),
        "family": backbone_words(line.backbone)[0],
        "colour": style.colour,
        "dash": dash,
        "symbol": _SYMBOLS[style.marker] + ("" if style.fill == "full" else "-open"),
    }


def _panel(
    panel: Panel, frame: pd.DataFrame, lines: Sequence[Line], samples: Samples, statistic: Statistic
) -> dict[str, Any]:
    traces = []
    for line in lines:
        values, ends = points(line, panel.column, samples, statistic)
        out = line.rows[line.rows["status"] == Status.OOM]
        traces.append({
            "pixels": column_values(line.pixels),
            "values": column_values(values),
            "low": column_values(ends[:, 0]),
            "high": column_values(ends[:, 1]),
            "labels": [show_resolution(resolution) for resolution in line.rows["resolution"]],
            "joined": (line.rows["status"] != Status.SKIPPED).tolist(),
            "oom_pixels": line.first_oom_pixels,
            "oom_words": None if out.empty else f"{show_resolution(out['resolution'].iloc[0])}: "
            f"{status_words(dict(out.iloc[0]))}",
        })  # fmt: skip
    measured = any_measured(frame, panel.column)
    any_ok = bool((frame["status"] == Status.OK).any())
    return {
        "letter": panel.letter,
        "title": panel.title,
        "quantity": panel.quantity,
        "kind": "bytes" if panel.quantity == "Memory" else "seconds",
        "empty": None
        if measured
        else (panel.when_empty.replace("\n", " ") if any_ok else "no cell was measured"),
        "show_oom": measured or not any_ok,
        "traces": traces,
    }


def _stacks(frame: pd.DataFrame, lines: Sequence[Line]) -> dict[str, Any]:
    """Stage latencies of each line by resolution, by the GPU's clock where there is one."""
    clock = "gpu" if any(any_measured(frame, f"gpu_{stage}_s") for stage in STAGES) else "host"
    stages = [stage for stage in STAGES if any_measured(frame, f"{clock}_{stage}_s")]
    busy = any(any_measured(frame, f"gpu_busy_{stage}_s") for stage in STAGES)
    share, words = (
        (gpu_waiting, "GPU waiting for launches") if busy else (host_over_gpu, "host over GPU latency")
    )
    return {
        "clock": "GPU" if clock == "gpu" else "Host",
        "launch_words": f"Launch-bound share: {words}",
        "stages": stages,
        "colours": [STAGE_COLOURS[stage] for stage in stages],
        "lines": [
            {
                "labels": [show_resolution(resolution) for resolution in line.rows["resolution"]],
                "seconds": [column_values(line.measured(f"{clock}_{stage}_s")) for stage in stages],
                "launch_bound": [column_values(share(line.rows, stage)) for stage in stages],
            }
            for line in lines
        ],
    }


def _fits(frame: pd.DataFrame, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For each figure that grows with the visual tokens, every line's points and, if it has one, its fit."""
    return [
        {"title": title, "kind": kind, "lines": [_fitted(line, column) for line in lines]}
        for column, (title, kind) in scaled_columns(frame).items()
    ]


def _fitted(line: Line, column: str) -> dict[str, Any] | None:
    fit = fit_line(line, column)
    if fit is None:
        return None
    ends = fit.tokens_low, fit.tokens_high
    at = np.unique(np.concatenate([space(*ends, _CURVE_POINTS) for space in (np.geomspace, np.linspace)]))
    curve = [fit.at(tokens) for tokens in at.tolist()]
    measured = np.isfinite(line.measured(column))
    return {
        "tokens": column_values(line.measured("visual_tokens")[measured]),
        "values": column_values(line.measured(column)[measured]),
        "labels": [show_resolution(resolution) for resolution in line.rows["resolution"][measured]],
        "curve_tokens": _short(at.tolist()),
        "curve": _short([point.value for point in curve]),
        "low": _short([point.low for point in curve]),
        "high": _short([point.high for point in curve]),
    }


def _short(numbers: Sequence[float]) -> list[float]:
    """Five digits, more than a chart can show, so that the page stays small."""
    return [float(f"{number:.5g}") for number in numbers]
