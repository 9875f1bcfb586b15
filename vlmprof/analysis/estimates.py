"""Each row's mean or median with its 95 % interval, computed once per column of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from vlmprof.analysis.frames import RunSamples, Statistic, numbers
from vlmprof.analysis.intervals import interval_ends, mean_ends, medians_with_ends
from vlmprof.analysis.repeats import RepeatedSamples, mean_over_repeats, median_over_repeats
from vlmprof.analysis.sums import END_TO_END, in_parts
from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import Floats
from vlmprof.records import Status


class Estimates:
    """The estimates of a frame's columns, shared by all tables and figures of a run.

    Without samples there are no intervals.
    """

    def __init__(self, frame: pd.DataFrame, samples: RunSamples | None = None) -> None:
        self.frame = frame
        self.samples: RunSamples = samples or {}
        self._ends: dict[str, Floats] = {}
        self._medians: dict[str, Floats] = {}

    def mean_ends(self, column: str) -> Floats:
        """Return the ends of the 95 % interval of each row's mean, shape (rows, 2); NaN without samples."""
        if column not in self._ends:
            self._ends[column] = column_intervals(self.frame, column, self.samples)
        return self._ends[column]

    def medians(self, column: str) -> Floats:
        """Return each row's median and the ends of its 95 % interval, (rows, 3); NaN without samples."""
        if column not in self._medians:
            self._medians[column] = column_medians(self.frame, column, self.samples)
        return self._medians[column]

    def points(self, column: str, statistic: Statistic) -> Floats:
        """Return the value to draw for each row and the ends of its 95 % interval, shape (rows, 3).

        NaN where nothing was measured. Rows without samples have their mean, whatever `statistic` is, and NaN
        for both ends.
        """
        means = numbers(self.frame, column)
        means[(self.frame["status"] != Status.OK).to_numpy()] = np.nan
        if statistic == "mean":
            points = np.column_stack([means, self.mean_ends(column)])
        else:
            medians = self.medians(column)
            known = np.isfinite(medians[:, 0])
            points = np.column_stack([np.where(known, medians[:, 0], means), medians[:, 1:]])
        points[np.isnan(means)] = np.nan
        return points


def column_intervals(frame: pd.DataFrame, column: str, samples: RunSamples | None) -> Floats:
    """Return the ends of the 95 % interval of each row's mean, shape (rows, 2); NaN without samples."""
    ends = interval_ends(_streams(frame, column, samples))
    for i, own in _joined(frame, column, samples):
        mean = mean_over_repeats(own, column)
        ends[i] = np.nan if mean is None else np.maximum(mean_ends(mean), 0.0)  # no latency is negative
    return ends


def column_medians(frame: pd.DataFrame, column: str, samples: RunSamples | None) -> Floats:
    """Return each row's median and the ends of its 95 % interval, shape (rows, 3); NaN without samples."""
    medians = medians_with_ends(_streams(frame, column, samples))
    for i, own in _joined(frame, column, samples):
        medians[i] = median_over_repeats(own, column)
    return medians


def _streams(frame: pd.DataFrame, column: str, samples: RunSamples | None) -> list[Sequence[float]]:
    known = samples or {}
    return [known.get(cell, {}).get(column, ()) for cell in frame["cell_id"].tolist()]


def _joined(
    frame: pd.DataFrame, column: str, samples: RunSamples | None
) -> Iterator[tuple[int, CellSamples]]:
    """Yield the position and samples of each row that joins repeats, or whose column is a sum."""
    if not samples or not (column == END_TO_END or "repeats" in frame):
        return
    for i, cell in enumerate(frame["cell_id"].tolist()):
        own = samples.get(cell, {})
        if isinstance(own, RepeatedSamples) or in_parts(own, column):
            yield i, own
