"""Printing, writing and reading the rows of `vlmprof kernels`, for operations and encoders."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmprof import files
from vlmprof.cli.json_output import add_rows, tell_files
from vlmprof.errors import UnwrittenError, UserError
from vlmprof.render.labels import STATUS_WORDS

if TYPE_CHECKING:
    from vlmprof.execution.kernel_runs import Outcome

FORMER_MODES = {
    "compiled": "compile", "graphed": "graphs",
    "fused graphed": "fused graphs", "public graphed": "public graphs",
}  # fmt: skip
"""Current names of modes by their names in older files."""


class RowFile:
    """The rows of a command, in `FOLDER/STEM.csv` and `.json` if there is a folder."""

    def __init__(self, stem: str, folder: Path | None, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.stem, self.folder, self.rows = stem, folder, list(rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write all of them, so that an interruption loses none.

        Raises `UnwrittenError` with the rows if that fails.
        """
        self.rows.append(row)
        if self.folder is None:
            return
        columns = list(dict.fromkeys(name for known in self.rows for name in known))
        filled = [{name: known.get(name) for name in columns} for known in self.rows]
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=columns)
        writer.writeheader()
        writer.writerows(filled)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.replace_file(self.folder / f"{self.stem}.json", json.dumps(filled, indent=1) + "\n")
            files.replace_file(self.folder / f"{self.stem}.csv", table.getvalue())
        except OSError as error:
            message = f"cannot write {self.folder}: {error.strerror or error}; its rows are above"
            raise UnwrittenError(message, map(json.dumps, filled)) from None

    def tell(self) -> None:
        """Print the paths of the files, and add the rows to the object of `--json`."""
        add_rows(self.stem, self.rows)
        if self.folder is not None:
            tell_files(self.folder / f"{self.stem}.{kind}" for kind in ("csv", "json"))


def reason(outcome: Outcome) -> str:
    """Return one line that explains why a row has no numbers."""
    return f"{STATUS_WORDS[outcome.status]}: {outcome.message}"


def passed(outcome: Outcome) -> bool:
    """Return whether a comparison with float64 ran and passed."""
    return outcome.status == "ok" and bool(outcome.figures["passed"])


def verdict_row(outcome: Outcome, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Build the row of a comparison."""
    return {**_state(outcome), "passed": False, **_finite(outcome.figures), **environment}


def print_folded(what: str, figures: str) -> None:
    """Print what was run and its figures: on one line, or on two if a terminal is narrower."""
    if sys.stdout.isatty() and len(what) + 1 + len(figures) > shutil.get_terminal_size().columns:
        print(f"{' '.join(what.split())}\n    {' '.join(figures.split())}", flush=True)
    else:
        print(f"{what} {figures}", flush=True)


def print_verdict(outcome: Outcome) -> None:
    """Print the operation, its errors and the verdict on one line."""
    label, figures = outcome.labels, outcome.figures
    said = "ok" if passed(outcome) else "FAILED"
    if outcome.status != "ok":
        said = f"FAILED: {outcome.kind}: {outcome.message}" if outcome.kind else f"FAILED: {outcome.message}"
    elif figures["deterministic"] is False:
        said = "NOT DETERMINISTIC"
    names = ("relative_error", "plain_relative_error", "limit")
    errors = " ".join(f"{figures.get(name, math.nan):8.1e}" for name in names)
    print_folded(
        f"{label.get('op', ''):20} {label.get('case', ''):30} {label.get('dtype', ''):9} "
        f"{label.get('backend', ''):8}",
        f"{errors} {said}",
    )


def print_tuned(outcome: Outcome) -> None:
    """Print the choice for a shape and the time of each candidate on one line."""
    if outcome.status != "ok":
        print(f"{outcome.labels.get('shape', '')}: {reason(outcome)}", flush=True)
        return
    seconds = outcome.figures["seconds"]
    times = ", ".join(f"{candidate}: {s * 1e3:.3f} ms" for candidate, s in seconds.items())
    chosen = outcome.figures.get("tile") or f"{outcome.figures['tiles']} tiles per chunk"
    print(f"{outcome.labels['shape']}: {chosen} ({times})", flush=True)


def bench_row(outcome: Outcome, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Build the row of a timed or failed operation."""
    return {**_state(outcome), **outcome.figures, **environment, **outcome.clocks()}


def print_row(row: Mapping[str, Any]) -> None:
    """Print latency and spread, rates and their shares of the ceilings on one line."""
    spread = (row["quartile_high_s"] - row["quartile_low_s"]) / row["median_s"]
    shares = [
        "" if row[name] is None else f" ({row[name]:4.0%})"
        for name in ("share_of_copy_ceiling", "share_of_matmul_ceiling")
    ]
    print_folded(
        f"{row['op']:20} {row['shape']:24} {row['dtype']:9} {row['backend']:10}",
        f"{row['median_s'] * 1e3:10.3f} ms ±{spread:4.0%} of {row['samples']:4} "
        f"{row['bytes_per_s'] / 1e9:8.1f} GB/s{shares[0]} "
        f"{row['flops_per_s'] / 1e12:8.3f} TFLOP/s{shares[1]}",
    )


def speed_ups(latencies: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield each slower name with the speed-up of the fastest over it."""
    if latencies:
        least = min(latencies.values())
        yield from ((name, s / least) for name, s in latencies.items() if s > least)


def print_speed_ups(where: str, latencies: Mapping[str, float]) -> None:
    """Print the speed-up of the fastest over each slower one in this run."""
    for name, ratio in speed_ups(latencies):
        fastest = min(latencies, key=latencies.__getitem__)
        print(f"{where}: {fastest} is {ratio:.2f}× as fast as {name}")


def print_ratios(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the speed-ups among the backends of each operation."""
    places: dict[str, dict[str, float]] = {}
    for row in rows:
        where = f"{row['op']} {row['shape']} {row['dtype']}"
        places.setdefault(where, {})[row["backend"]] = row["median_s"]
    for where, latencies in places.items():
        print_speed_ups(where, latencies)


def load(path: Path) -> list[dict[str, Any]]:
    """Load the rows in the JSON file of a `RowFile`, with current mode names; empty if there is no such file.

    Raises `UserError` if the file is not a list of rows.
    """
    if not files.exists(path):
        return []
    try:
        rows = files.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a list of rows")
    for row in rows:
        if row.get("mode") in FORMER_MODES:
            row["mode"] = FORMER_MODES[row["mode"]]
    return rows


def read(folder: Path, stem: str, device_name: str) -> list[dict[str, Any]]:
    """Load the rows that an earlier run wrote to `folder`; empty if there is no such file.

    Raises `UserError` if the file is not from a `RowFile`, or if it is from another device.
    """
    path = folder / f"{stem}.json"
    try:
        rows = load(path)
    except UserError as error:
        raise UserError(f"cannot continue: {error}; choose another --out or move the file away") from None
    for name in dict.fromkeys(row.get("device_name") for row in rows):
        if name != device_name:
            there = f"is from {name}" if name else "does not record its device"
            raise UserError(f"{path} {there}, but this is {device_name}; choose another --out")
    return rows


def _state(outcome: Outcome) -> dict[str, Any]:
    return {**outcome.labels, "status": str(outcome.status), "message": outcome.message}


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Remove NaN and infinity, which JSON does not support."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
