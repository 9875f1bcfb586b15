"""Rows of `vlmprof kernels bench`, for operations and whole backbones: printed, and written as they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmprof.errors import UserError

if TYPE_CHECKING:
    from vlmprof.kernels.bench import BenchRow


def reason(error: Exception) -> str:
    """Why a row is missing, in a line."""
    from vlmprof.execution.oom import is_out_of_memory
    from vlmprof.execution.processes import first_line

    what = "out of memory" if is_out_of_memory(error) else "failed"
    return f"{what}: {first_line(str(error)) or type(error).__name__}"


def read(folder: Path, stem: str) -> list[dict[str, Any]]:
    """The rows that an earlier run kept there; none where there is no such file. Raises `UserError` for a
    file that is not one of `write`."""
    path = folder / f"{stem}.json"
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("not a list of rows")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot go on from {path}: {error}; name another --out or move it away") from None
    return rows


def write(rows: Sequence[dict[str, Any]], folder: Path, stem: str) -> None:
    """All rows so far, so that a run that is cut short keeps what it has, as `stem`.csv and `stem`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{stem}.json.part"
    whole.write_text(json.dumps(rows, indent=1) + "\n")
    whole.replace(folder / f"{stem}.json")
    with (folder / f"{stem}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def print_row(row: BenchRow) -> None:
    """One line: latency and spread, rates and their shares of the ceilings."""
    spread = (row.quartile_high_s - row.quartile_low_s) / row.median_s
    print(
        f"{row.op:20} {row.shape:24} {row.dtype:9} {row.backend:10} {row.median_s * 1e3:10.3f} ms "
        f"±{spread:4.0%} of {row.samples:4} "
        f"{row.bytes_per_s / 1e9:8.1f} GB/s ({row.share_of_copy_ceiling:4.0%}) "
        f"{row.flops_per_s / 1e12:8.3f} TFLOP/s ({row.share_of_matmul_ceiling:4.0%})",
        flush=True,
    )


def print_ratios(rows: Sequence[BenchRow]) -> None:
    """How many times faster the fastest is than each other one, in this run."""
    for row in rows:
        rivals = [r for r in rows if (r.op, r.shape, r.dtype) == (row.op, row.shape, row.dtype)]
        fastest = min(rivals, key=lambda r: r.median_s)
        if row is not fastest:
            where = f"{row.op} {row.shape} {row.dtype}"
            ratio = row.median_s / fastest.median_s
            print(f"{where}: {fastest.backend} is {ratio:.2f}× as fast as {row.backend}")


def draw(rows: Sequence[BenchRow], folder: Path) -> None:
    """The roofline of the rows that compute something, and a line that says what is in `folder`."""
    from vlmprof.render.figures.roofline import draw_roofline

    # a copy has no place under a roofline
    computing = [asdict(row) for row in rows if row.counted_flops]
    if computing:
        draw_roofline(computing, folder / "roofline.png")
    print(f"wrote bench.csv, bench.json{' and roofline.png' if computing else ''} to {folder}")
