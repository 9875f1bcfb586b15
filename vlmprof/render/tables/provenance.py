"""The table of how each cell was measured: iterations, start-up times, clocks and load, kernels."""

from __future__ import annotations

import pandas as pd

from vlmprof.analysis.frames import any_measured, numbers
from vlmprof.records import Status
from vlmprof.render.tables.sheet import Column, Kind, Sheet, column_values
from vlmprof.render.tables.stages import name_columns

_NUMBERS = (
    ("repeats", "repeats", Kind.COUNT),
    ("warm_up", "warm-up", Kind.COUNT),
    ("iterations", "iterations", Kind.COUNT),
    ("build_s", "build", Kind.SECONDS),
    ("first_iteration_s", "first iteration", Kind.SECONDS),
    ("compile_s", "compiling", Kind.SECONDS),
    ("gpu_clock_mean_mhz", "GPU clock (MHz)", Kind.NUMBER),
    ("gpu_clock_min_mhz", "lowest (MHz)", Kind.NUMBER),
    ("gpu_temperature_max_c", "hottest (°C)", Kind.NUMBER),
    ("gpu_power_mean_w", "power (W)", Kind.NUMBER),
    ("nvml_process_bytes", "process on the GPU", Kind.BYTES),
    ("cpu_clock_mean_mhz", "CPU clock (MHz)", Kind.NUMBER),
    ("other_load_cores", "other load (cores)", Kind.NUMBER),
)


def conduct_sheet(frame: pd.DataFrame) -> Sheet:
    """Return a table of how the `ok` rows of `frame` were measured; empty if there are none."""
    rows = frame[frame["status"] == Status.OK].reset_index(drop=True)
    columns = name_columns(rows)
    columns += [
        Column(title, kind, column_values(numbers(rows, name)))
        for name, title, kind in _NUMBERS
        if any_measured(rows, name)
    ]
    if "llm_shared_from" in rows and rows["llm_shared_from"].notna().any():
        sources = [name if isinstance(name, str) else "own" for name in rows["llm_shared_from"].tolist()]
        columns.append(Column("LLM measured in", Kind.TEXT, sources))
    chosen = rows["backends"].tolist() if "backends" in rows else []
    if any(isinstance(parts, dict) and parts for parts in chosen):
        words = [", ".join(map(" ".join, parts.items())) for parts in chosen]
        columns.append(Column("kernels", Kind.TEXT, words))
    note = (
        "First iteration: includes compilation, tuning and first allocations; it is never measured. "
        "Other load: CPU time of other processes per second."
    )
    return Sheet("conduct", "How it was measured", note, columns if len(rows) else ())
