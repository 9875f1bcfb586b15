"""The tables of a run: cells, stages, fits, crossovers, marginal costs, out-of-memory frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vlmprof.analysis.charts import FittedPanel
from vlmprof.analysis.crossover import Crossover, all_crossovers
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import Along, Line, RunSamples, any_measured, numbers, varying_axes
from vlmprof.analysis.scaling import Fit
from vlmprof.records import STAGES, Status
from vlmprof.render.labels import line_label
from vlmprof.render.tables.cells import status_words
from vlmprof.render.tables.columns import SCALED
from vlmprof.render.tables.decisions import lever_sheet
from vlmprof.render.tables.provenance import conduct_sheet
from vlmprof.render.tables.row_warnings import has_message
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value, column_values, interval_values
from vlmprof.render.tables.stages import median_column, name_columns, ok_places, row_tokens, stage_sheet

_BESIDE = (
    ("decode_tokens_per_s", "tokens/s", Kind.NUMBER),
    ("cache_bytes", "key–value cache", Kind.BYTES),
    ("weight_bytes", "weights", Kind.BYTES),
    ("energy_per_image_j", "energy per image (J)", Kind.NUMBER),
)
"""Further columns of a cell, without a fit."""

MARGINAL_AT = (196, 1024, 4096, 16_384, 65_536)
"""Token counts at which marginal costs are shown: those of 224², 512², 1024², 2048² and 4096²."""

_KILO = 1000.0

_SIZE: dict[Along, str] = {"resolution": "square image size", "frames": "number of frames"}
_LARGEST: dict[Along, str] = {"resolution": "largest image", "frames": "largest number of frames"}
_CROSSING: dict[Along, tuple[str, Kind]] = {
    "resolution": ("from", Kind.PIXELS),
    "frames": ("from (frames)", Kind.NUMBER),
}


def scaled_columns(frame: pd.DataFrame) -> dict[str, tuple[str, Kind]]:
    """Return the measured columns of `SCALED`: resident memory only without a caching allocator, and TTFT
    only if decoding makes it differ from end-to-end latency."""
    found = {column: words for column, words in SCALED.items() if any_measured(frame, column)}
    if "tpot_s" not in found:
        found.pop("ttft_s", None)
    if "peak_allocated_bytes" in found:
        found.pop("peak_rss_bytes", None)
    return found


def run_tables(
    estimates: Estimates, lines: Sequence[Line], fits: Sequence[FittedPanel]
) -> dict[str, list[Sheet]]:
    """Return the tables of a run by section of its report; the fits, crossovers and frontier of `lines`."""
    columns = scaled_columns(estimates.frame)
    cells, *stages = cell_sheets(estimates)
    levers = lever_sheet(estimates.frame) if varying_axes(estimates.frame) else None
    return {
        "cells": [cells],
        "time": stages,
        "levers": [levers] if levers else [],
        "scaling": fits_sheets(fits),
        "marginal": [marginal_sheet(fits)],
        "crossovers": [crossovers_sheet(lines, columns, estimates.samples)],
        "frontier": [frontier_sheet(lines, columns)],
        "conduct": [sheet for sheet in [conduct_sheet(estimates.frame)] if len(sheet)],
    }


def cell_sheets(estimates: Estimates) -> list[Sheet]:
    """Return a table of all cells with their figures and status, then one for each measured stage."""
    frame = estimates.frame
    latencies = [
        str(column)
        for column in frame
        if str(column).endswith("_s") and "_per_" not in str(column) and any_measured(frame, str(column))
    ]
    shown = {name: column_values(numbers(frame, name), estimates.mean_ends(name)) for name in latencies}
    stages = [stage for stage in STAGES if f"host_{stage}_s" in shown or f"gpu_{stage}_s" in shown]
    ok = ok_places(frame).tolist()
    kept = {column: [values[i] for i in ok] for column, values in shown.items()}
    return [_cells_sheet(estimates, shown), *(stage_sheet(estimates, stage, kept) for stage in stages)]


def _cells_sheet(estimates: Estimates, shown: Mapping[str, list[Value]]) -> Sheet:
    frame = estimates.frame
    columns = [*name_columns(frame), *row_tokens(frame)]
    for name, (title, kind) in scaled_columns(frame).items():
        columns.append(Column(title, kind, shown.get(name) or column_values(numbers(frame, name))))
        if name == "end_to_end_s":
            columns += median_column(estimates.medians(name), "end-to-end median")
    for name, title, kind in _BESIDE:
        if any_measured(frame, name):
            columns.append(Column(title, kind, column_values(numbers(frame, name))))
    columns.append(Column("status", Kind.TEXT, _status_column(frame)))
    note = "Means over the measured iterations, and medians where marked, with 95 % intervals in parentheses."
    return Sheet("cells", "Cells", note, columns)


def fits_sheets(panels: Sequence[FittedPanel]) -> list[Sheet]:
    """Return the fixed, linear and quadratic parts of every line: a table of latencies and one of memory."""
    sheets = []
    for kind, unit, word in ((Kind.SECONDS, "s", "latency"), (Kind.BYTES, "bytes", "memory")):
        chosen = [panel for panel in panels if panel.unit == unit]
        by_line = zip(*(panel.lines for panel in chosen), strict=True)
        fits = [
            (line_label(fitted.line), SCALED[panel.column][0], fitted.fit)
            for one_line in by_line
            for panel, fitted in zip(chosen, one_line, strict=True)
            if fitted is not None
        ]
        if fits:
            sheets.append(_fits_sheet(fits, kind, word))
    return sheets


def _fits_sheet(fits: Sequence[tuple[str, str, Fit]], kind: Kind, word: str) -> Sheet:
    note = (
        "y = fixed + linear · n + quadratic · n², by relative least squares, with 95 % intervals. n counts "
        "visual tokens for the LLM and encoder tokens for everything else. A part whose interval contains 0 "
        "is not significant. Misfit: root mean square of the relative residuals; if it is large, the model "
        "does not describe the line."
    )
    quadratics = [fit.quadratic for *_, fit in fits]
    columns = [
        Column("line", Kind.TEXT, [label for label, *_ in fits]),
        Column("figure", Kind.TEXT, [title for _, title, _ in fits]),
        Column("fixed", kind, [interval_values(fit.fixed) for *_, fit in fits]),
        Column("linear, per 1,000 tokens", kind,
               [interval_values(fit.linear.scaled(_KILO)) for *_, fit in fits]),
        Column("quadratic, per (1,000 tokens)²", kind,
               [interval_values(part and part.scaled(_KILO**2)) for part in quadratics]),
        Column("misfit", Kind.PERCENT, [fit.relative_rms for *_, fit in fits]),
    ]  # fmt: skip
    return Sheet(f"fits-{word}", f"Scaling of {word} with tokens", note, columns)


def marginal_sheet(panels: Sequence[FittedPanel]) -> Sheet:
    """Return the cost of one more encoder token and of one more visual token, at several token counts."""
    fitted = {panel.column: panel.lines for panel in panels}
    clocked = "gpu" if "gpu_vision_s" in fitted or "gpu_prefill_s" in fitted else "host"
    stages = [
        (title, fitted[f"{clocked}_{stage}_s"])
        for stage, title in (("vision", "encoder"), ("prefill", "prefill"))
        if f"{clocked}_{stage}_s" in fitted
    ]
    rows = [
        (line_label(one.line), title, one.fit)
        for i in range(len(stages[0][1]) if stages else 0)
        for title, lines in stages
        if (one := lines[i]) is not None
    ]

    def marginal(fit: Fit, tokens: int) -> Value:
        inside = fit.tokens_low <= tokens <= fit.tokens_high
        return interval_values(fit.marginal(tokens)) if inside else None

    slopes = {tokens: [marginal(fit, tokens) for *_, fit in rows] for tokens in MARGINAL_AT}
    note = (
        f"Slope of the scaling fit of the {'GPU' if clocked == 'gpu' else 'host'} latency, with its 95 % "
        "interval, at token counts within the measured range. The encoder is fitted against encoder tokens, "
        "prefill against visual tokens."
    )
    return Sheet("marginal", "Marginal cost per token", note, [
        Column("line", Kind.TEXT, [label for label, *_ in rows]),
        Column("stage", Kind.TEXT, [title for _, title, _ in rows]),
        *(Column(f"at {n:,} tokens", Kind.SECONDS, own) for n, own in slopes.items() if any(own)),
    ])  # fmt: skip


def crossovers_sheet(
    lines: Sequence[Line], columns: Mapping[str, tuple[str, Kind]], samples: RunSamples | None
) -> Sheet:
    """Return a table of the sizes at which one backbone becomes cheaper than another."""
    found = [
        (crossover, title)
        for column, (title, _) in columns.items()
        if not column.startswith("host_") or column.replace("host", "gpu") not in columns
        for crossover in all_crossovers(lines, column, samples)
    ]

    def words(one: Crossover) -> str:
        ends = [word for word, is_open in (("below", one.open_below), ("above", one.open_above)) if is_open]
        said = [f"may be {' or '.join(ends)} the measured sizes"] if ends else []
        if not one.sampled and not one.column.endswith("_bytes"):
            said.append("interval without sampling noise")
        return "; ".join(said)

    note = (
        f"The {_SIZE[lines[0].along]} above which the second backbone is cheaper than the first. The 95 % "
        "interval covers sampling noise and the error of interpolation between measured sizes."
    )
    return Sheet("crossovers", "Crossovers", note, [
        Column("figure", Kind.TEXT, [title for _, title in found]),
        Column("cheaper below", Kind.TEXT, [line_label(c.cheaper_below) for c, _ in found]),
        Column("cheaper above", Kind.TEXT, [line_label(c.cheaper_above) for c, _ in found]),
        Column(*_CROSSING[lines[0].along], [[c.size, c.low_size, c.high_size] for c, _ in found]),
        Column("", Kind.TEXT, [words(c) for c, _ in found]),
    ])  # fmt: skip


def frontier_sheet(lines: Sequence[Line], columns: Mapping[str, tuple[str, Kind]]) -> Sheet:
    """Return for each line the largest size that ran and the first that ran out of memory."""
    memory = next((name for name in ("peak_allocated_bytes", "peak_rss_bytes") if name in columns), None)
    last = [int(np.flatnonzero(line.ok)[-1]) if line.ok.any() else None for line in lines]
    first = [line.first_oom for line in lines]
    largest: list[Value] = [
        None if i is None else line.size_labels[i] for line, i in zip(lines, last, strict=True)
    ]
    peaks = np.array([
        np.nan if i is None or memory is None else line.measured(memory)[i]
        for line, i in zip(lines, last, strict=True)
    ])  # fmt: skip
    note = (
        f"The {_LARGEST[lines[0].along]} of each line that ran, its peak memory, and the first that ran "
        "out of memory."
    )
    return Sheet("frontier", "Out-of-memory frontier", note, [
        Column("line", Kind.TEXT, [line_label(line) for line in lines]),
        Column("largest that ran", Kind.TEXT, largest),
        Column(columns[memory][0] if memory else "peak memory", Kind.BYTES, column_values(peaks)),
        Column("first out of memory", Kind.TEXT, ["none" if oom is None else oom.label for oom in first]),
        Column("in", Kind.TEXT, [None if oom is None else oom.stage for oom in first]),
    ])  # fmt: skip


def _status_column(frame: pd.DataFrame) -> list[Value]:
    words: list[Value] = ["ok"] * len(frame)
    notable = np.flatnonzero(has_message(frame) | (frame["status"] != Status.OK).to_numpy())
    for i, row in zip(notable.tolist(), frame.iloc[notable].to_dict("records"), strict=True):
        words[i] = status_words(row)
    return words
