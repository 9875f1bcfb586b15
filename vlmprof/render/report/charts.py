"""The data and styles of a report's charts, as JSON that `report.js` draws with plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmprof.analysis.charts import Charts, FittedLine, StageStacks
from vlmprof.analysis.frames import Line
from vlmprof.analysis.series import QUANTITIES, PanelData, Series, Unit
from vlmprof.render.figures.style import STAGE_COLOURS, LineStyle, family_order, line_styles
from vlmprof.render.labels import SIZE_TITLES, backbone_words, line_label, oom_words
from vlmprof.render.tables.columns import SCALED
from vlmprof.render.tables.sheet import Kind, column_values

_SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "p": "pentagon",
    "P": "cross", "X": "x", "<": "triangle-left", ">": "triangle-right", "h": "hexagon", "d": "diamond-tall",
    "*": "star", "8": "octagon",
}  # fmt: skip
_KINDS: dict[Unit, Kind] = {"s": Kind.SECONDS, "bytes": Kind.BYTES}


def chart_data(charts: Charts) -> dict[str, Any]:
    """Convert charts to the JSON structure of the script, with lines grouped by family."""
    figure = charts.scaling
    places = family_order(figure.lines)
    styles = line_styles(figure.lines)
    return {
        "lines": [_looks(line, styles[line.key]) for line in (figure.lines[i] for i in places)],
        "sizes": [{"size": at, "label": label} for at, label in figure.ticks.items()],
        "size_title": SIZE_TITLES[figure.along],
        "panels": [_panel(panel, places) for panel in figure.panels],
        "stacks": _stacks(charts.stacks, places),
        "fits": [
            {
                "title": SCALED[panel.column][0],
                "kind": _KINDS[panel.unit],
                "tokens": panel.tokens.capitalize(),
                "lines": [_fitted(panel.lines[i]) for i in places],
            }
            for panel in charts.fits
        ],
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


def _panel(panel: PanelData, places: Sequence[int]) -> dict[str, Any]:
    return {
        "letter": panel.letter,
        "title": panel.title,
        "quantity": QUANTITIES[panel.unit],
        "kind": _KINDS[panel.unit],
        "empty": panel.message,
        "show_oom": panel.shows_oom,
        "traces": [_trace(panel.series[i]) for i in places],
    }


def _trace(series: Series) -> dict[str, Any]:
    line = series.line
    out = line.first_oom
    return {
        "sizes": column_values(line.sizes),
        "values": column_values(series.values),
        "low": column_values(series.low),
        "high": column_values(series.high),
        "labels": line.size_labels,
        "joined": line.tried.tolist(),
        "oom_size": None if out is None else out.size,
        "oom_words": None if out is None else f"{out.label}: {oom_words(out.stage)}",
    }


def _stacks(stacks: StageStacks, places: Sequence[int]) -> dict[str, Any]:
    return {
        "clock": "GPU" if stacks.clock == "gpu" else "Host",
        "launch_words": f"Launch-bound share: {stacks.launch_measure}",
        "stages": stacks.stages,
        "colours": [STAGE_COLOURS[stage] for stage in stacks.stages],
        "lines": [
            {
                "labels": stacked.line.size_labels,
                "seconds": [column_values(stage) for stage in stacked.latency_s],
                "launch_bound": [column_values(stage) for stage in stacked.launch_bound],
            }
            for stacked in (stacks.lines[i] for i in places)
        ],
    }


def _fitted(line: FittedLine | None) -> dict[str, Any] | None:
    if line is None:
        return None
    curve = line.curve
    return {
        "tokens": column_values(line.tokens),
        "values": column_values(line.values),
        "labels": line.size_labels,
        "curve_tokens": _short(curve.tokens.tolist()),
        "curve": _short(curve.values.tolist()),
        "low": _short(curve.low.tolist()),
        "high": _short(curve.high.tolist()),
    }


def _short(numbers: Sequence[float]) -> list[float]:
    """Round to five digits, more than a chart can show, to keep the page small."""
    return [float(f"{number:.5g}") for number in numbers]
