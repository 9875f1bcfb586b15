"""A run folder as data, and several runs joined into one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vlmprof.analysis.frames import Samples, Statistic


@dataclass(frozen=True)
class Run:
    """The rows, raw values and manifest of a run folder."""

    name: str
    frame: pd.DataFrame = field(repr=False)
    samples: Samples = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    path: Path | None = None

    @property
    def statistic(self) -> Statistic:
        """What its protocol makes precise: medians of an adaptive run, means of counted iterations."""
        fixed = self.manifest.get("spec", {}).get("fixed", {})
        return "median" if fixed.get("sampling") == "adaptive" else "mean"


def load(run: Path | str) -> Run:
    """A run folder, read. Raises `UserError` when it is none or has no rows yet."""
    from vlmprof import store

    path = Path(run)
    return Run(
        path.resolve().name, store.load_frame(path), store.load_samples(path), store.load_manifest(path), path
    )


def join(runs: Sequence[Run]) -> tuple[pd.DataFrame, Samples]:
    """The rows and samples of several runs as one, with the run's name as one more axis.

    A single run is returned as it is.
    """
    if len(runs) == 1:
        return runs[0].frame, runs[0].samples
    frames: list[pd.DataFrame] = []
    samples: dict[str, Mapping[str, Sequence[float]]] = {}
    for name, run in zip(_distinct([run.name for run in runs]), runs, strict=True):
        named = run.frame.assign(run=name, cell_id=[f"{name}/{cell}" for cell in run.frame["cell_id"]])
        frames.append(named)
        samples |= {f"{name}/{cell}": values for cell, values in run.samples.items()}
    return pd.concat(frames, ignore_index=True), samples


def joint_statistic(runs: Sequence[Run]) -> Statistic:
    """What several runs are drawn by: medians if that is what all of them make precise."""
    return "median" if all(run.statistic == "median" for run in runs) else "mean"


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that repeat numbered."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
