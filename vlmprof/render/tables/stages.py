"""The table of one stage of a run: latencies, percentiles, rates and share of end-to-end latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.charts import gpu_waiting, host_over_gpu
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import (
    RunSamples,
    any_measured,
    axis_value,
    axis_word,
    encoder_tokens,
    merges_tokens,
    numbers,
    ratio,
    varying_axes,
)
from vlmprof.analysis.percentiles import PERCENTILES, supported_percentile
from vlmprof.measure.statistics import Floats
from vlmprof.records import Status
from vlmprof.render.tables.columns import axis_column, token_columns
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value, column_values


def name_columns(frame: pd.DataFrame) -> list[Column]:
    """Return the columns that identify rows: backbone, resolution, and every other axis that varies."""
    axes = ("backbone", "resolution", *varying_axes(frame))
    return [
        replace(
            axis_column(axis, [axis_word(axis, value) for value in frame[axis]]),
            raw=[axis_value(value) for value in frame[axis]],
        )
        for axis in axes
    ]


def row_tokens(frame: pd.DataFrame, rank: int = 0) -> list[Column]:
    """Return the visual tokens; before them the tiles, if any photo is cut, and the encoder tokens, if their
    number differs."""
    tiles = numbers(frame, "tiles")
    return token_columns(
        column_values(numbers(frame, "visual_tokens")),
        column_values(encoder_tokens(frame)) if merges_tokens(frame) else None,
        column_values(tiles) if (tiles > 1).any() else None,
        rank,
    )


def stage_sheet(estimates: Estimates, stage: str, shown: Mapping[str, list[Value]]) -> Sheet:
    """Return the table of one stage for the `ok` rows; `shown` has latencies with intervals by column."""
    places = ok_places(estimates.frame)
    ok = estimates.frame.iloc[places].reset_index(drop=True)
    columns = [*name_columns(ok), *row_tokens(ok)]
    host, gpu = f"host_{stage}_s", f"gpu_{stage}_s"
    note = "Host: CPU time of the call."
    if host in shown:
        columns.append(Column("host", Kind.SECONDS, shown[host]))
    if gpu in shown:
        columns.append(Column("GPU", Kind.SECONDS, shown[gpu]))
        columns.append(Column("host / GPU", Kind.PERCENT, column_values(host_over_gpu(ok, stage))))
        note += " GPU: time between two device events. A host / GPU near 100 % means launch-bound."
    if f"gpu_busy_{stage}_s" in shown:
        columns.append(Column("GPU waiting", Kind.PERCENT, column_values(gpu_waiting(ok, stage))))
        note += " GPU waiting: share of GPU latency without a running kernel."
    clocked = gpu if gpu in shown else host
    columns += median_column(estimates.medians(clocked)[places], "median")
    columns += _percentile_columns(ok, clocked, estimates.samples)
    rates = _rate_columns(ok, stage)
    if rates:
        columns += rates
        note += " Rates: counted work per measured time, and their shares of the rates of a large matrix"
        note += " product and a large copy. Counted bytes assume no cache hits."
    share = ratio(numbers(ok, clocked), numbers(ok, "end_to_end_s"))
    columns.append(Column("of end-to-end", Kind.PERCENT, column_values(share)))
    for name, title in (("peak_allocated", "peak allocated"), ("peak_rss", "peak resident")):
        column = f"{name}_{stage}_bytes"
        if any_measured(ok, column):
            columns.append(Column(title, Kind.BYTES, column_values(numbers(ok, column))))
            break
    return Sheet(f"stage-{stage}", stage.capitalize(), note, columns)


def median_column(medians: Floats, title: str) -> list[Column]:
    """Return a column of medians with intervals, shape (rows, 3), or none if no row has samples."""
    if not np.isfinite(medians[:, 0]).any():
        return []
    return [Column(title, Kind.SECONDS, column_values(medians[:, 0], medians[:, 1:]))]


def ok_places(frame: pd.DataFrame) -> npt.NDArray[np.int_]:
    """Return the positions of the `ok` rows of a frame."""
    return np.flatnonzero((frame["status"] == Status.OK).to_numpy())


def _percentile_columns(ok: pd.DataFrame, latency: str, samples: RunSamples) -> list[Column]:
    """Return columns of the high percentiles of a latency that the sample counts support."""
    if not samples:
        return []
    streams = [samples.get(cell, {}).get(latency, ()) for cell in ok["cell_id"].tolist()]
    found = []
    for percent in PERCENTILES:
        values: list[Value] = [supported_percentile(stream, percent) for stream in streams]
        if any(value is not None for value in values):
            found.append(Column(f"p{percent}", Kind.SECONDS, values))
    return found


def _rate_columns(ok: pd.DataFrame, stage: str) -> list[Column]:
    """Return a stage's FLOP/s and bytes per second, with their shares of the device's ceilings if known."""
    found = []
    for work, title, size, ceiling, rival in (
        ("flops", "TFLOP/s", 1e12, "matmul_ceiling_flops_per_s", "matrix product"),
        ("bytes", "GB/s", 1e9, "copy_ceiling_bytes_per_s", "copy"),
    ):
        rate = f"achieved_{stage}_{work}_per_s"
        if any_measured(ok, rate):
            reached = numbers(ok, rate)
            found.append(Column(title, Kind.NUMBER, column_values(reached / size)))
            if any_measured(ok, ceiling):
                share = ratio(reached, numbers(ok, ceiling))
                found.append(Column(f"of {rival}", Kind.PERCENT, column_values(share)))
    return found
