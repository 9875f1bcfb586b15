"""A run folder as data, and several runs joined into one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vlmprof.analysis.frames import RUN, RunSamples, Statistic, axis_columns
from vlmprof.analysis.repeats import pool
from vlmprof.manifest import declare_backbones
from vlmprof.measure.samples import CellSamples


@dataclass(frozen=True, eq=False)
class Run:
    """The rows, raw values and manifest of a run folder."""

    name: str
    frame: pd.DataFrame = field(repr=False)
    samples: RunSamples = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    path: Path | None = None
    stored: pd.DataFrame | None = field(default=None, repr=False)
    """The rows as stored, if cells were repeated: one per repeat. `frame` has one per cell."""

    @property
    def folder(self) -> Path:
        """The run folder; the current folder if the run has none."""
        return self.path or Path()

    @property
    def rows(self) -> pd.DataFrame:
        """The rows as stored: one per cell, or per repeat of it."""
        return self.frame if self.stored is None else self.stored

    @property
    def statistic(self) -> Statistic:
        """The statistic that suits the sampling: the median if adaptive, the mean for fixed iterations."""
        fixed = self.manifest.get("spec", {}).get("fixed", {})
        return "median" if fixed.get("sampling") == "adaptive" else "mean"


def load(run: Path | str) -> Run:
    """Load a run folder, with the repeats of each cell joined.

    Raises `UserError` if it is not one or has no rows yet.
    """
    from vlmprof import store

    path = Path(run)
    stored = store.load_frame(path)
    frame, samples = pool(stored, store.load_samples(path))
    repeated = stored if frame is not stored else None
    manifest = store.load_manifest(path)
    declare_backbones(manifest)
    return Run(path.resolve().name, frame, samples, manifest, path, repeated)


def join(runs: Sequence[Run]) -> tuple[pd.DataFrame, RunSamples]:
    """Join the rows and samples of several runs, with the run's name as an additional axis.

    A single run is returned unchanged.
    """
    if len(runs) == 1:
        return runs[0].frame, runs[0].samples
    frames: list[pd.DataFrame] = []
    samples: dict[str, CellSamples] = {}
    for name, run in zip(_distinct([run.name for run in runs]), runs, strict=True):
        named = run.frame.assign(**{RUN: name}, cell_id=[f"{name}/{cell}" for cell in run.frame["cell_id"]])
        frames.append(named)
        samples |= {f"{name}/{cell}": values for cell, values in run.samples.items()}
    # pandas warns of columns that are empty in one frame, and of a frame in many blocks
    joined = pd.concat([frame.astype(object) for frame in frames], ignore_index=True).infer_objects().copy()
    joined.attrs["axes"] = list(dict.fromkeys(axis for frame in frames for axis in axis_columns(frame)))
    return joined, samples


def joint_statistic(runs: Sequence[Run]) -> Statistic:
    """Return the statistic to draw for several runs: the median if it suits all of them."""
    return "median" if all(run.statistic == "median" for run in runs) else "mean"


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that repeat."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
