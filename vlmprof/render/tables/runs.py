"""The table of the runs in a folder."""

from __future__ import annotations

from collections.abc import Sequence

from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.run_list import RunSummary


def runs_sheet(runs: Sequence[RunSummary]) -> Sheet:
    """Return one row per run: its name, specification, machine, date and cells by status."""
    return Sheet("runs", "Runs", "", [
        Column("run", Kind.TEXT, [run.name for run in runs]),
        Column("specification", Kind.TEXT, [run.specification or "" for run in runs], 2),
        Column("machine", Kind.TEXT, [run.machine or "" for run in runs], 3, key="device_name"),
        Column("date (UTC)", Kind.TEXT, [(run.started_at or "")[:16].replace("T", " ") for run in runs], 1,
               key="started_at", raw=[run.started_at for run in runs]),
        Column("cells", Kind.TEXT, [_cells(run) for run in runs],
               raw=[{"problem": run.problem, "repeats": run.repeats, **run.cells} for run in runs]),
    ])  # fmt: skip


def _cells(run: RunSummary) -> str:
    """Describe the rows of a run: `12 ok, 1 oom`, `36 ok in 3 repeats`, or why it cannot be read."""
    if run.problem is not None:
        return run.problem
    counts = ", ".join(f"{count} {status}" for status, count in run.cells.items()) or "none yet"
    return counts if run.repeats == 1 else f"{counts} in {run.repeats} repeats"
