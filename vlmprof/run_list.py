"""The runs below `runs/`: finding one by its name, and listing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlmprof.errors import UserError, unknown
from vlmprof.files import exists, is_folder
from vlmprof.manifest import read_manifest
from vlmprof.records import Status
from vlmprof.store import read_rows

RUNS = Path("runs")
"""The folder in which sweeps put their run folders."""


@dataclass(frozen=True)
class RunSummary:
    """The readable facts about a run folder."""

    name: str
    specification: str | None = None
    machine: str | None = None
    """The device, as the driver names it."""
    started_at: str | None = None
    """ISO 8601, in UTC."""
    cells: Mapping[Status, int] = field(default_factory=dict)
    """Number of rows by status, repeats included; only those that occur."""
    repeats: int = 1
    problem: str | None = None
    """Why the folder cannot be read."""


def find_run(run: Path) -> Path:
    """Return the folder of a run: a path, or the name of a folder below `runs/`.

    Raises `UserError` if there is neither.
    """
    if read_manifest(run) is not None:
        return run
    below = RUNS / run
    if not run.is_absolute() and read_manifest(below) is not None:
        return below
    if exists(run) or len(run.parts) != 1 or not (names := _names(RUNS)):
        why = "it has no run.json" if exists(run) else "there is no such folder"
        raise UserError(f"{run} is not a run folder: {why}")
    raise unknown("run (no such folder either)", str(run), names)


def list_runs(folder: Path = RUNS) -> list[RunSummary]:
    """Summarize the run folders in `folder`, the oldest first."""
    found = [_summary(folder, name) for name in _names(folder)]
    return sorted(found, key=lambda run: (run.started_at or "", run.name))


def _names(folder: Path) -> list[str]:
    if not is_folder(folder):
        return []
    return sorted(path.parent.name for path in folder.glob("*/run.json"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _summary(folder: Path, name: str) -> RunSummary:
    try:
        manifest = read_manifest(folder / name) or {}
        rows = {row.cell_id: row for row in read_rows(folder / name)}
    except (UserError, OSError) as problem:
        return RunSummary(name, problem=str(problem))
    spec, environment = manifest.get("spec", {}), manifest.get("environment", {})
    counts = Counter(row.status for row in rows.values())
    return RunSummary(
        name=name,
        specification=_text(spec.get("name")),
        machine=_text(environment.get("device_name")) or _text(environment.get("cpu")),
        started_at=_text(environment.get("started_at")),
        cells={status: counts[status] for status in Status if counts[status]},
        repeats=max((row.repeat for row in rows.values()), default=1),
    )
