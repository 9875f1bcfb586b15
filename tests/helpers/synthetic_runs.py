"""Synthetic runs for the tests of figures, tables and reports: rows and samples with known values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlmprof.records import Row, StageFigures, Status

GIB = 2**30
COST = {"vmamba-t": 1.0, "vmamba-s": 1.8, "vit-t": 0.4, "vit-s": 0.7, "vit-b": 1.5}


def cell(
    backbone: str = "vit-t",
    resolution: int | str = 224,
    *,
    status: Status = Status.OK,
    gpu: bool = True,
    scale: float = 1.0,
    axes: Mapping[str, Any] | None = None,
    **changed: Any,
) -> Row:
    """One row whose latencies grow with the pixels and whose memory grows beside fixed weights."""
    width, _, height = str(resolution).partition("x")
    size = (int(height or width), int(width))
    tokens = -(-size[0] // 16) * -(-size[1] // 16)
    others = {"llm": "tiny", "connector": "mlp2", "dtype": "float32", "batch_size": 1} | dict(axes or {})
    names = "-".join(map(str, (backbone, resolution, *(axes or {}).values())))
    row: dict[str, Any] = {
        "cell_id": names,
        "axes": {"backbone": backbone, "resolution": str(resolution), **others},
        "height_px": size[0],
        "width_px": size[1],
        "status": status,
        "device": "NVIDIA H200" if gpu else "cpu",
        "warm_up": 3,
        "iterations": 10,
    }
    if status is Status.OK:
        seconds = scale * COST.get(backbone, 1.0) * (1e-3 + 2e-6 * tokens)
        memory = GIB // 2 + 200_000 * tokens
        clocks = {"vision": (seconds, seconds * 1.2), "prefill": (seconds * 2, seconds * 2.4)}
        row |= {
            "visual_tokens": tokens,
            "prompt_tokens": 0,
            "stages": {
                stage: StageFigures(host_s=host, gpu_s=device if gpu else None)
                for stage, (host, device) in clocks.items()
            },
            "end_to_end_s": seconds * 3.7,
            "peak_allocated_bytes": memory if gpu else None,
            "peak_reserved_bytes": memory + GIB // 8 if gpu else None,
            "peak_rss_bytes": memory + GIB // 4,
            "weight_bytes": GIB // 2,
        }
    if status is Status.OOM:
        row |= {"oom_stage": "vision", "message": "out of memory"}
    return Row(**(row | changed))


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as a run's DataFrame."""
    return pd.DataFrame([row.to_flat() for row in rows])


def samples(
    rows: Sequence[Row], iterations: int = 10, spread: float = 0.05, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Raw values of every latency of every `ok` row, whose means are exactly the row's."""
    random = np.random.default_rng(seed)
    drawn = {}
    for row in rows:
        flat = row.to_flat()
        latencies = {
            name: value
            for name, value in flat.items()
            if name.startswith(("host_", "gpu_", "end_to_end")) and name.endswith("_s") and value is not None
        }
        noise = {name: random.lognormal(0, spread, iterations) for name in latencies}
        drawn[row.cell_id] = {
            name: list(value * noise[name] / noise[name].mean()) for name, value in latencies.items()
        }
    return drawn


def sweep(
    backbones: Sequence[str] = ("vit-t", "vit-s", "vmamba-t"),
    resolutions: Sequence[int | str] = (224, 256, 384, 512, 768, 1024),
    oom_from: Mapping[str, int] | None = None,
    **options: Any,
) -> list[Row]:
    """Every backbone at every resolution, out of memory from a given side on, skipped above."""
    rows = []
    for backbone in backbones:
        first = (oom_from or {}).get(backbone, 10**9)
        for resolution in resolutions:
            side = int(str(resolution).split("x")[0])
            status = Status.OK if side < first else Status.OOM if side == first else Status.SKIPPED
            rows.append(cell(backbone, resolution, status=status, **options))
    return rows


def write_run(folder: Path, rows: Sequence[Row], raw: Mapping[str, Any] | None = None) -> Path:
    """A run folder with these rows and samples, as a sweep leaves it."""
    (folder / "samples").mkdir(parents=True)
    manifest = {
        "spec": {"name": "synthetic"},
        "command": "vlmprof sweep synthetic",
        "environment": {"cpu": "none", "packages": {"torch": "2.13"}, "gpus": [{"name": "H200"}]},
    }
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row.to_flat()) + "\n" for row in rows))
    for cell_id, columns in (raw or {}).items():
        (folder / "samples" / f"{cell_id}.json").write_text(json.dumps(columns))
    return folder
