"""A run's rows as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from vlmprof.analysis.estimates import column_intervals, column_medians
from vlmprof.analysis.frames import (
    Samples,
    any_measured,
    axis_columns,
    show_resolution,
    varying_axes,
)
from vlmprof.records import Status
from vlmprof.render.labels import backbone_label
from vlmprof.render.tables.row_warnings import row_warnings
from vlmprof.units import show_bytes, show_seconds

_LATENCIES = {
    "host_preprocess_s": "preprocess",
    "host_vision_s": "host vision",
    "host_prefill_s": "host LLM",
    "gpu_vision_s": "GPU vision",
    "gpu_prefill_s": "GPU LLM",
    "end_to_end_s": "end-to-end",
}
_DECODING = {"ttft_s": "TTFT", "tpot_s": "TPOT"}
_MEMORY = {"peak_allocated_bytes": "peak allocated", "peak_rss_bytes": "peak resident"}
_STYLES = {Status.OOM: "red", Status.ERROR: "red", Status.TIMEOUT: "yellow", Status.SKIPPED: "dim"}


def render_table(frame: pd.DataFrame, samples: Samples | None = None) -> Table:
    """The rows as a `rich` table, which prints as plain text where there is no terminal.

    Columns that hold nothing are left out; axes with one value are said once, in the caption. With
    samples, the mean end-to-end latency and its median carry half the widths of their 95 % intervals. What
    else an `ok` row says is in `warning_lines`, to be printed below.
    """
    shown = varying_axes(frame)
    latencies = {column: title for column, title in _LATENCIES.items() if any_measured(frame, column)}
    decoding = _DECODING if any_measured(frame, "tpot_s") else {}
    memory = next((column for column in _MEMORY if any_measured(frame, column)), None)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_constants(frame), caption_justify="left")
    for title in ("backbone", "resolution", *(axis.replace("_", " ") for axis in shown)):
        table.add_column(title, no_wrap=True)
    ends = column_intervals(frame, "end_to_end_s", samples)
    medians = column_medians(frame, "end_to_end_s", samples)
    with_medians = bool(np.isfinite(medians).any())
    titles = [
        *latencies.values(),
        *(["median"] if with_medians else []),
        *decoding.values(),
        *([_MEMORY[memory]] if memory else []),
    ]
    for title in ("visual tokens", *titles):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row, (low, high), median in zip(
        frame.to_dict("records"), ends.tolist(), medians.tolist(), strict=True
    ):
        figures = [_latency(row[name]) for name in latencies]
        if "end_to_end_s" in latencies:
            figures[-1] += _plus_minus(row["end_to_end_s"], low, high)
        if with_medians:
            figures.append(_latency(median[0]) + _plus_minus(*median))
        figures += [_latency(row[name]) for name in decoding]
        table.add_row(
            escape(backbone_label(str(row["backbone"]))),
            show_resolution(row["resolution"]),
            *(escape(str(row[axis])) for axis in shown),
            f"{int(row['visual_tokens']):,}" if _is_number(row.get("visual_tokens")) else "",
            *figures,
            *([show_bytes(row[memory]) if _is_number(row[memory]) else ""] if memory else []),
            escape(_status(row)),
            style=_STYLES.get(Status(row["status"])),
        )
    return table


def _status(row: Mapping[Any, Any]) -> str:
    """As `status_words`, without what would make a low row high."""
    return "ok, see below" if Status(row["status"]) is Status.OK and row_warnings(row) else status_words(row)


def status_words(row: Mapping[Any, Any]) -> str:
    """How a cell ended, in words: `ok`, `out of memory in vision`, `failed: …`, `skipped: …`."""
    status = Status(row["status"])
    message = row.get("message")
    message = message.strip().split("\n")[0] if isinstance(message, str) else ""
    if status is Status.OOM:
        stage = row.get("oom_stage")
        return f"out of memory in {stage}" if isinstance(stage, str) and stage else "out of memory"
    if status is Status.OK:
        return "; ".join(["ok", *row_warnings(row)])
    words = {Status.ERROR: "failed", Status.TIMEOUT: "timed out", Status.SKIPPED: "skipped"}[status]
    return f"{words}: {message}" if message else words


def _constants(frame: pd.DataFrame) -> str | None:
    fixed = [axis for axis in axis_columns(frame) if axis not in ("backbone", "resolution")]
    same = [axis for axis in fixed if frame[axis].nunique(dropna=False) == 1]
    words = [f"{axis.replace('_', ' ')} {frame[axis].iloc[0]}" for axis in same]
    if "device" in frame and frame["device"].nunique() == 1:
        words.append(f"on {frame['device'].dropna().iloc[0]}")
    return escape(", ".join(words)) or None


def _latency(value: Any) -> str:
    return show_seconds(value) if _is_number(value) else ""


def _plus_minus(value: Any, low: float, high: float) -> str:
    if not (_is_number(value) and value > 0 and np.isfinite(low)):
        return ""
    percent = 100 * (high - low) / 2 / value
    if percent > 100:  # how much over says nothing more
        return " ± over 100 %"
    return f" ± {percent:.2g} %" if percent < 10 else f" ± {percent:.0f} %"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value))
