"""Reading a run's DataFrame: columns as numbers, axes, and the lines of a scaling figure.

A line is a set of cells that differ in resolution and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.errors import UserError
from vlmprof.records import STAGES, Row, StageFigures, Status, stage_column

Statistic = Literal["mean", "median"]
"""What stands for a cell's samples in a figure. A row holds means; medians are taken from the samples."""

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Raw values by cell id and column name: `samples["a1b2"]["host_vision_s"]`."""

_ROW_FIELDS = frozenset(f.name for f in fields(Row)) - {"axes", "stages"}
_STAGE_COLUMNS = frozenset(stage_column(f.name, stage) for f in fields(StageFigures) for stage in STAGES)

_VLM_AXES = ("vlm", "llm", "connector")
"""Axes of a VLM that was measured as published; its name is on the axis `backbone`."""


@dataclass(frozen=True)
class LineName:
    """What distinguishes a line from the others of its figure. Its label and its style are made from this."""

    backbone: str
    setting: Mapping[str, str]
    """The other axes that vary within the frame, as written: `{"llm": "tiny", "dtype": "float32"}`."""

    @property
    def key(self) -> tuple[str, ...]:
        """The same as one value, for a dict."""
        return (self.backbone, *self.setting.values())


@dataclass(frozen=True)
class FirstOom:
    """The smallest image of a line for which memory ran out."""

    pixels: float
    resolution: str
    """As written: `2048`, `1333x800`."""
    stage: str | None
    """Where memory ran out, if the row says so."""


@dataclass(frozen=True)
class Line(LineName):
    """The cells of one model in one setting, by resolution."""

    rows: pd.DataFrame
    """The line's rows in order of pixel count, with a `pixels` column."""
    places: npt.NDArray[np.int_]
    """Where each of the rows is in the frame that was split."""

    @cached_property
    def pixels(self) -> npt.NDArray[np.float64]:
        """Height times width of each row's image, in pixels."""
        return self.rows["pixels"].to_numpy(dtype=np.float64)

    @cached_property
    def resolutions(self) -> tuple[str, ...]:
        """The resolution of each row for people: `512²`."""
        return tuple(show_resolution(resolution) for resolution in self.rows["resolution"])

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which rows were measured."""
        return np.array([status == Status.OK for status in self.rows["status"]], dtype=bool)

    @cached_property
    def tried(self) -> npt.NDArray[np.bool_]:
        """Which rows were not skipped. Drawn lines join these: a failed cell leaves a gap."""
        return np.array([status != Status.SKIPPED for status in self.rows["status"]], dtype=bool)

    @cached_property
    def first_oom(self) -> FirstOom | None:
        """The smallest image for which memory ran out; None where it never did."""
        out = self.rows[self.rows["status"] == Status.OOM]
        if out.empty:
            return None
        row = out.iloc[0]
        stage = row.get("oom_stage")
        known = stage if isinstance(stage, str) else None
        return FirstOom(float(row["pixels"]), str(row["resolution"]), known)

    @property
    def first_oom_pixels(self) -> float | None:
        """`first_oom`, as pixels alone."""
        return None if self.first_oom is None else self.first_oom.pixels

    def measured(self, column: str) -> npt.NDArray[np.float64]:
        """The column of every row, NaN where the row is not `ok` or holds no number."""
        values = numbers(self.rows, column)
        values[~self.ok] = np.nan
        return values


def numbers(frame: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column as float64, NaN for null. A column that the frame lacks is all NaN."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    values = pd.to_numeric(frame[column], errors="coerce")
    return np.array(values.to_numpy(dtype=np.float64, na_value=np.nan))


def why_nothing_measured(frame: pd.DataFrame) -> str | None:
    """In words, how the cells of a run without a single measured one ended; None where one was measured."""
    counts = frame["status"].value_counts()
    if counts.get(Status.OK, 0):
        return None
    ended = ", ".join(f"{counts[status]} {status}" for status in Status if status in counts)
    return f"none of its {len(frame)} cells was measured ({ended})"


def any_measured(frame: pd.DataFrame, column: str) -> bool:
    """Whether any `ok` row holds a number in this column."""
    return bool(np.isfinite(numbers(frame[frame["status"] == Status.OK], column)).any())


def axis_columns(frame: pd.DataFrame) -> list[str]:
    """The axes of a sweep: the columns that are neither a row's own field nor a stage's figure."""
    own = _ROW_FIELDS | _STAGE_COLUMNS | {"pixels"}
    return [column for column in frame.columns if column not in own]


def varying_axes(frame: pd.DataFrame) -> list[str]:
    """The axes other than backbone and resolution that take more than one value in this frame.

    Where every row is of a VLM as published, its parts are no axes: its name says it all.
    """
    others = [axis for axis in axis_columns(frame) if axis not in ("backbone", "resolution")]
    if "vlm" in frame and frame["vlm"].notna().all():
        named = frame["vlm"].nunique() == frame["backbone"].nunique()
        others = [axis for axis in others if axis not in (_VLM_AXES if named else _VLM_AXES[1:])]
    return [axis for axis in others if frame[axis].nunique(dropna=False) > 1]


def _word(value: object) -> str:
    """An axis value as a word; a row from before the axis existed has none."""
    return "none" if value is None or value != value else str(value)


def split_lines(frame: pd.DataFrame, most: int | None = None) -> list[Line]:
    """The lines of a frame, in the order in which they first appear, `most` of them at most.

    Raises `UserError` when the frame has no rows or lacks a column that every row has.
    """
    missing = {"cell_id", "backbone", "resolution", "height_px", "width_px", "status"} - set(frame.columns)
    if missing:
        raise UserError(f"these rows have no column {', '.join(sorted(missing))}; they are not a run's rows")
    if frame.empty:
        raise UserError("the run has no rows yet; run the sweep first")
    axes = varying_axes(frame)
    pixels = numbers(frame, "height_px") * numbers(frame, "width_px")
    numbered = frame.assign(pixels=pixels, line=_line_numbers(frame, axes), place=np.arange(len(frame)))
    if most is not None:
        numbered = numbered[numbered["line"] < most]
    lines = []
    for _, rows in numbered.sort_values("pixels", kind="stable").groupby("line"):
        values = {axis: _word(rows[axis].iloc[0]) for axis in axes}
        in_order = rows.drop(columns=["line", "place"]).reset_index(drop=True)
        lines.append(Line(str(rows["backbone"].iloc[0]), values, in_order, rows["place"].to_numpy()))
    return lines


def count_lines(frame: pd.DataFrame) -> int:
    """How many lines `split_lines` would find."""
    return int(_line_numbers(frame, varying_axes(frame)).max()) + 1 if len(frame) else 0


def _line_numbers(frame: pd.DataFrame, axes: Sequence[str]) -> pd.Series[int]:
    """For each row the number of its line, counted from zero in the order in which lines first appear."""
    keys = [frame[axis].map(_word) for axis in ("backbone", *axes)]
    return frame.groupby(keys, sort=False).ngroup()


def show_resolution(resolution: object) -> str:
    """A resolution for people: `512²`, `1333×800` (width by height, in pixels)."""
    width, _, height = str(resolution).partition("x")
    return f"{width}×{height}" if height and height != width else f"{width}²"
