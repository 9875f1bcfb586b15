"""A run folder as data, and several runs joined into one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vlmprof.analysis.frames import RunSamples, Statistic
from vlmprof.measure.samples import CellSamples


@dataclass(frozen=True)
class Run:
    """The rows, raw values and manifest of a run folder."""

    name: str
    frame: pd.DataFrame = field(repr=False)
    samples: RunSamples = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    path: Path | None = None

    @property
    def statistic(self) -> Statistic:
        """The statistic that suits the sampling: the median if adaptive, the mean for fixed iterations."""
        fixed = self.manifest.get("spec", {}).get("fixed", {})
        return "median" if fixed.get("sampling") == "adaptive" else "mean"


def load(run: Path | str) -> Run:
    """Load a run folder. Raises `UserError` if it is not one or has no rows yet."""
    from vlmprof import store

    path = Path(run)
    return Run(
        path.resolve().name, store.load_frame(path), store.load_samples(path), store.load_manifest(path), path
    )


def join(runs: Sequence[Run]) -> tuple[pd.DataFrame, RunSamples]:
    """Join the rows and samples of several runs, with the run's name as an additional axis.

    A single run is returned unchanged.
    """
    if len(runs) == 1:
        return runs[0].frame, runs[0].samples
    frames: list[pd.DataFrame] = []
    samples: dict[str, CellSamples] = {}
    for name, run in zip(_distinct([run.name for run in runs]), runs, strict=True):
        named = run.frame.assign(run=name, cell_id=[f"{name}/{cell}" for cell in run.frame["cell_id"]])
        frames.append(named)
        samples |= {f"{name}/{cell}": values for cell, values in run.samples.items()}
    return pd.concat(frames, ignore_index=True), samples


def joint_statistic(runs: Sequence[Run]) -> Statistic:
    """Return the statistic to draw for several runs: the median if it suits all of them."""
    return "median" if all(run.statistic == "median" for run in runs) else "mean"


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that repeat."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
