"""Warnings of rows: about their samples, and about disturbances during the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.frames import axis_word, varying_axes
from vlmprof.records import Status
from vlmprof.render.labels import backbone_label
from vlmprof.units import show_resolution


def row_warnings(row: Mapping[Any, Any]) -> list[str]:
    """Return the warnings about a row's samples and the disturbances during its measurement."""
    lists = (row.get(name) for name in ("warnings", "disturbances"))
    return [str(words) for found in lists if isinstance(found, list | tuple) for words in found]


def has_message(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows have a message, a warning or a disturbance."""
    found = np.zeros(len(frame), dtype=bool)
    for name in ("message", "warnings", "disturbances"):
        if name in frame:
            found |= frame[name].notna().to_numpy() & frame[name].map(bool).to_numpy(
                dtype=bool, na_value=False
            )
    return found


def warning_lines(frame: pd.DataFrame) -> list[str]:
    """Return a line for each `ok` row with warnings: `ViT-T 224² compile: host_vision_s drifted by +3%`."""
    axes = varying_axes(frame)
    lines = []
    for row in frame[has_message(frame)].to_dict("records"):
        said = row_warnings(row)
        if said and row["status"] == Status.OK:
            place = [backbone_label(str(row["backbone"])), show_resolution(row["resolution"])]
            place += [axis_word(axis, row[axis]) for axis in axes]
            lines.append(f"{' '.join(place)}: {'; '.join(said)}")
    return lines
