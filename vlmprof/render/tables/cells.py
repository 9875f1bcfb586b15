"""The table of cells that a sweep prints, and descriptions of their status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import any_measured, axis_columns, axis_word, memory_column, numbers
from vlmprof.errors import first_line
from vlmprof.records import Status
from vlmprof.render.labels import STATUS_WORDS, oom_words, span
from vlmprof.render.tables.columns import SCALED
from vlmprof.render.tables.row_warnings import row_warnings
from vlmprof.render.tables.sheet import Column, Kind, Sheet, column_values
from vlmprof.render.tables.stages import name_columns, row_tokens
from vlmprof.settings import AS_BEFORE

_LATENCIES = (
    ("host_preprocess_s", "preprocess", 5),
    ("host_vision_s", "host vision", 4),
    ("host_prefill_s", "host LLM", 4),
    ("gpu_vision_s", "GPU vision", 3),
    ("gpu_prefill_s", "GPU LLM", 3),
)
"""Columns with titles and ranks. End-to-end latency, memory and status matter most."""

_DECODING = (("ttft_s", "TTFT", 2), ("tpot_s", "TPOT", 2))


def run_sheet(estimates: Estimates) -> Sheet:
    """Build the table of a run that a sweep prints at its end.

    Empty columns are omitted, and axes with one value are shown once above the table. With samples, mean and
    median end-to-end latency have the half-widths of their 95 % intervals. Warnings of `ok` rows are left to
    `warning_lines`, printed below the table.
    """
    frame = estimates.frame
    columns = [*name_columns(frame), *row_tokens(frame, 3)]
    columns += _latency_columns(frame, _LATENCIES)
    end_to_end = "end_to_end_s"
    if any_measured(frame, end_to_end):
        values = column_values(numbers(frame, end_to_end), estimates.mean_ends(end_to_end))
        columns.append(Column("end-to-end", Kind.SECONDS, values, 1, half_width=True))
    medians = estimates.medians(end_to_end)
    if np.isfinite(medians).any():
        values = column_values(medians[:, 0], medians[:, 1:])
        columns.append(Column("median", Kind.SECONDS, values, 2, half_width=True))
    if any_measured(frame, "tpot_s"):
        columns += _latency_columns(frame, _DECODING)
    if (memory := memory_column(frame)) is not None:
        columns.append(Column(*SCALED[memory], column_values(numbers(frame, memory)), 1))
    columns.append(Column("status", Kind.TEXT, [_status(row) for row in frame.to_dict("records")]))
    return Sheet("cells", "Cells", "", columns, head=_constants(frame))


def _latency_columns(frame: pd.DataFrame, wanted: tuple[tuple[str, str, int], ...]) -> list[Column]:
    return [
        Column(title, Kind.SECONDS, column_values(numbers(frame, name)), rank)
        for name, title, rank in wanted
        if any_measured(frame, name)
    ]


def _status(row: Mapping[Any, Any]) -> str:
    """Return `status_words`, but keep the row on one line."""
    return "ok, see below" if Status(row["status"]) is Status.OK and row_warnings(row) else status_words(row)


def status_words(row: Mapping[Any, Any]) -> str:
    """Describe the status of a cell: `ok`, `out of memory in vision`, `failed: …`, `skipped: …`."""
    status = Status(row["status"])
    message = row.get("message")
    message = first_line(message) if isinstance(message, str) else ""
    if status is Status.OOM:
        return oom_words(row.get("oom_stage"))
    if status is Status.OK:
        return "; ".join(["ok", *row_warnings(row)])
    return f"{STATUS_WORDS[status]}: {message}" if message else STATUS_WORDS[status]


def _constants(frame: pd.DataFrame) -> str:
    fixed = [axis for axis in axis_columns(frame) if axis not in ("backbone", "resolution")]
    same = [axis for axis in fixed if frame[axis].nunique(dropna=False) == 1]
    values = {axis: axis_word(axis, frame[axis].iloc[0]) for axis in same}
    said = {axis: value for axis, value in values.items() if str(AS_BEFORE.get(axis)) != value}
    words = [f"{axis.replace('_', ' ')} {value}" for axis, value in said.items()]
    if "repeats" in frame:
        counts = numbers(frame, "repeats")
        words.append(f"means of {span(f'{counts.min():.0f}', f'{counts.max():.0f}')} repeats")
    if "device" in frame and frame["device"].nunique() == 1:
        words.append(f"on {frame['device'].dropna().iloc[0]}")
    return ", ".join(words)
