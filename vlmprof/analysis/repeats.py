"""Repeats of a cell, each measured in a process of its own: one row, with intervals from their spread.

The samples of one process do not show what is constant in it but differs in the next: memory placement,
clocks, other load. The interval of a repeated cell is therefore Student's t over the means (or medians) of
its repeats, the highest level of the hierarchy (T. Kalibera & R. Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013). It includes the spread within a process, because each repeat's mean does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vlmprof.analysis.frames import RunSamples, numbers
from vlmprof.analysis.intervals import Mean, mean_ends, mean_of_repeats
from vlmprof.analysis.sums import cell_mean, cell_median, in_parts
from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import Floats
from vlmprof.records import END_TO_END_PARTS, Status, cell_of_repeat

_MEANS = ("_s", "_j", "_w", "_mean_mhz", "_cores")
_LARGEST = ("_bytes", "_c", "_max_mhz")
_SMALLEST = ("_min_mhz",)


class RepeatedSamples(dict[str, list[float]]):
    """Raw values of a repeated cell by column, all repeats joined; `repeats` has those of each."""

    def __init__(self, repeats: Sequence[CellSamples]) -> None:
        columns = dict.fromkeys(column for own in repeats for column in own)
        super().__init__({name: [v for own in repeats for v in own.get(name, ())] for name in columns})
        self.repeats = tuple(repeats)


def repeats_of(own: CellSamples) -> Sequence[CellSamples]:
    """Return the samples of each measurement of a cell: one per repeat."""
    return own.repeats if isinstance(own, RepeatedSamples) else (own,)


def mean_over_repeats(own: CellSamples, column: str) -> Mean | None:
    """Return the mean of a column of a cell: over its repeats, with the error of their spread, or over its
    samples if it was not repeated. None with too few samples."""
    each = [sum(float(np.mean(part)) for part in parts) for parts in _parts_of_repeats(own, column)]
    if len(each) > 1:
        return mean_of_repeats(each)
    return next((mean for one in repeats_of(own) if (mean := cell_mean(one, column)) is not None), None)


def median_over_repeats(own: CellSamples, column: str) -> Floats:
    """Return the mean of the medians of a cell's repeats and the ends of its 95 % interval, which are NaN if
    fewer than two repeats have samples; or the median of its samples if it was not repeated."""
    if not isinstance(own, RepeatedSamples):
        return cell_median(own, column)
    each = [sum(float(np.median(part)) for part in parts) for parts in _parts_of_repeats(own, column)]
    if len(each) < 2:
        return np.array([each[0] if each else np.nan, np.nan, np.nan])
    mean = mean_of_repeats(each)
    return np.array([mean.value, *mean_ends(mean)])


def sample_count(own: CellSamples, column: str) -> int:
    """Return the number of iterations in which a column of a cell was sampled, all repeats together."""
    return sum(min(map(len, parts)) for parts in _parts_of_repeats(own, column))


def _parts_of_repeats(own: CellSamples, column: str) -> list[list[Sequence[float]]]:
    """Return the samples of each repeat that has any: of a column, or of the two parts that add up to it."""
    found = []
    for one in repeats_of(own):
        columns = END_TO_END_PARTS if in_parts(one, column) else (column,)
        found.append([one.get(name, ()) for name in columns])
    return [parts for parts in found if all(map(len, parts))]


def pool(frame: pd.DataFrame, samples: RunSamples) -> tuple[pd.DataFrame, RunSamples]:
    """Join the repeats of each cell to one row, whose `repeats` are the number of `ok` ones.

    Latencies and rates are means over the repeats that have them, peaks are the largest. Warnings say which
    repeat they are about. A run without repeats is returned unchanged.
    """
    if not (numbers(frame, "repeat") > 1).any():
        return frame, samples
    groups: dict[str, list[dict[Hashable, Any]]] = {}
    for row in frame.sort_values("repeat", kind="stable").to_dict("records"):
        groups.setdefault(cell_of_repeat(row["cell_id"], int(row["repeat"])), []).append(row)
    order = [cell_of_repeat(cell, int(n)) for cell, n in zip(frame["cell_id"], frame["repeat"], strict=True)]
    pooled = pd.DataFrame([_joined(cell, groups[cell]) for cell in dict.fromkeys(order)])
    pooled.attrs = dict(frame.attrs)
    joined: dict[str, CellSamples] = {}
    for cell, rows in groups.items():
        chosen = _chosen(rows)
        own = [samples[row["cell_id"]] for row in chosen if row["cell_id"] in samples]
        if len(own) == len(chosen):  # an interval of some repeats may not contain the mean of all
            joined[cell] = RepeatedSamples(own) if len(own) > 1 else own[0]
    return pooled, joined


def _chosen(rows: Sequence[dict[Hashable, Any]]) -> Sequence[dict[Hashable, Any]]:
    """Return the `ok` repeats of a cell; its first if there are none."""
    return [row for row in rows if row["status"] == Status.OK] or rows[:1]


def _joined(cell_id: str, rows: Sequence[dict[Hashable, Any]]) -> dict[Hashable, Any]:
    chosen = _chosen(rows)
    row = dict(chosen[0])
    for column in row:
        own = [other[column] for other in chosen]
        values = [v for v in own if isinstance(v, int | float) and not isinstance(v, bool) and v == v]
        if values:
            if str(column).endswith(_MEANS):
                row[column] = float(np.mean(values))
            elif str(column).endswith(_LARGEST):
                row[column] = max(values)
            elif str(column).endswith(_SMALLEST):
                row[column] = min(values)
    row |= {"cell_id": cell_id, "repeats": sum(other["status"] == Status.OK for other in rows)}
    for column in ("warnings", "disturbances"):
        row[column] = _by_repeat(chosen, column)
    for other in rows if row["repeats"] else ():
        if other["status"] != Status.OK:
            said = other.get("message")
            message = said if isinstance(said, str) else "no message"
            row["warnings"].append(f"repeat {other['repeat']} ended in {other['status']}: {message}")
    return row


def _by_repeat(rows: Sequence[dict[Hashable, Any]], column: str) -> list[str]:
    """Return the distinct texts of the repeats. One that some repeats lack names those that have it."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for words in row[column] if isinstance(row.get(column), list | tuple) else ():
            about.setdefault(str(words), []).append(str(row["repeat"]))
    return [
        words if len(about[words]) == len(rows) else f"repeat {' and '.join(about[words])}: {words}"
        for words in about
    ]
