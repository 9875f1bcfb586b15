"""The roofline plot of a kernel benchmark: FLOP/s against FLOPs per byte, with two measured ceilings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlmprof.files import replacing

MARKERS = "osD^v<>P*X"


def draw_roofline(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the rows of `bench.json`, all from one device, to `path`, with one panel per dtype."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    figure = Figure(figsize=(6.4 * len(dtypes), 4.6))
    axes = figure.subplots(1, len(dtypes), squeeze=False)
    operations = list(dict.fromkeys(row["op"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    for axis, dtype in zip(axes[0], dtypes, strict=True):
        own = [row for row in rows if row["dtype"] == dtype and row["counted_flops"]]
        copy, matmul = own[0]["copy_ceiling_bytes_per_s"], own[0]["matmul_ceiling_flops_per_s"]
        right = max(row["counted_flops"] / row["counted_bytes"] for row in own)
        intensity = np.geomspace(0.1, 2 * max(right, matmul / copy), 100)
        axis.loglog(intensity, np.minimum(intensity * copy, matmul), color="black", linewidth=1)
        for row in own:
            axis.plot(
                row["counted_flops"] / row["counted_bytes"],
                row["flops_per_s"],
                marker=MARKERS[operations.index(row["op"]) % len(MARKERS)],
                color=f"C{backends.index(row['backend']) % 10}",
                linestyle="",
            )
        axis.set(title=dtype, xlabel="FLOPs per byte (counted)", ylabel="FLOP/s (achieved)")
        axis.grid(alpha=0.3)
    handles = [Line2D([], [], color=f"C{i % 10}", marker="s", linestyle="") for i in range(len(backends))]
    shapes = [
        Line2D([], [], color="grey", marker=MARKERS[i % len(MARKERS)], linestyle="")
        for i in range(len(operations))
    ]
    figure.legend(handles + shapes, backends + operations, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=150, bbox_inches="tight")
