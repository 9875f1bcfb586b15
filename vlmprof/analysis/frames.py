"""A run's DataFrame: columns as numbers, axes, and the lines of a scaling figure.

A line is a set of cells that differ only in their size: in resolution or, in a run of videos of one
resolution, in frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.errors import UserError
from vlmprof.measure.samples import CellSamples
from vlmprof.measure.statistics import Floats
from vlmprof.records import STAGES, Status
from vlmprof.settings import AS_BEFORE, AXIS_NAMES
from vlmprof.units import show_frames, show_resolution

Statistic = Literal["mean", "median"]
"""The statistic of a cell's samples that figures show. Rows hold means; medians come from the samples."""

Along = Literal["resolution", "frames"]
"""The axis along which the cells of a line differ."""

Clock = Literal["host", "gpu"]

RunSamples = Mapping[str, CellSamples]
"""Raw values of a run by cell id and column: `samples["a1b2"]["host_vision_s"]`."""

RUN = "run"
"""The axis that tells the runs of a joined frame apart."""

MOST_LINES = 24
"""Largest number of lines that a figure shows."""

_VLM_AXES = ("vlm", "llm", "connector")
"""Axes that describe a VLM from transformers, whose name is on the `backbone` axis."""


@dataclass(frozen=True)
class LineName:
    """The properties that distinguish a line in its figure. They determine its label and style."""

    backbone: str
    setting: Mapping[str, str]
    """The other axes that vary within the frame, as written: `{"llm": "tiny", "dtype": "float32"}`."""

    @property
    def key(self) -> tuple[str, ...]:
        """The same properties as one hashable value."""
        return (self.backbone, *self.setting.values())


@dataclass(frozen=True)
class FirstOom:
    """The smallest cell of a line that ran out of memory."""

    size: float
    label: str
    """As shown: `2048²`, `1333×800`, `32 frames`."""
    stage: str | None
    """The stage that ran out of memory, if known."""


@dataclass(frozen=True)
class Line(LineName):
    """The cells of one model in one configuration, by size."""

    rows: pd.DataFrame
    """The line's rows in order of size, with a `size` column."""
    places: npt.NDArray[np.int_]
    """The position of each row in the frame that was split."""
    along: Along = "resolution"

    @cached_property
    def sizes(self) -> Floats:
        """Height times width of each row's image in pixels, or its number of frames."""
        return self.rows["size"].to_numpy(dtype=np.float64)

    @cached_property
    def size_labels(self) -> tuple[str, ...]:
        """The formatted size of each row: `512²`, `8 frames`."""
        if self.along == "frames":
            return tuple(show_frames(count) for count in self.sizes)
        return tuple(show_resolution(resolution) for resolution in self.rows["resolution"])

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which rows were measured."""
        return np.array([status == Status.OK for status in self.rows["status"]], dtype=bool)

    @cached_property
    def tried(self) -> npt.NDArray[np.bool_]:
        """Which rows were not skipped. Drawn lines connect these, so that a failed cell leaves a gap."""
        return np.array([status != Status.SKIPPED for status in self.rows["status"]], dtype=bool)

    @cached_property
    def first_oom(self) -> FirstOom | None:
        """The smallest cell that ran out of memory; None if none did."""
        out = np.flatnonzero((self.rows["status"] == Status.OOM).to_numpy())
        if not out.size:
            return None
        stage = self.rows.iloc[out[0]].get("oom_stage")
        known = stage if isinstance(stage, str) else None
        return FirstOom(float(self.sizes[out[0]]), self.size_labels[out[0]], known)

    def measured(self, column: str) -> Floats:
        """Return a column, shape (rows,), with NaN for rows that are not `ok` or have no value."""
        values = numbers(self.rows, column)
        values[~self.ok] = np.nan
        return values


def numbers(frame: pd.DataFrame, column: str) -> Floats:
    """Return a column as float64, with NaN for null. A missing column is all NaN."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    values = pd.to_numeric(frame[column], errors="coerce")
    return np.array(values.to_numpy(dtype=np.float64, na_value=np.nan))


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide elementwise, with NaN where `whole` is 0, such as the GPU latency of a stage without kernels."""
    return part / np.where(whole > 0, whole, np.nan)


def encoder_tokens(frame: pd.DataFrame) -> Floats:
    """Return the encoder tokens of each row: the visual tokens, where no connector changed their number."""
    own = numbers(frame, "encoder_tokens")
    return np.where(np.isnan(own), numbers(frame, "visual_tokens"), own)


def merges_tokens(frame: pd.DataFrame) -> bool:
    """Return whether any row has more or fewer visual tokens than encoder tokens."""
    change = encoder_tokens(frame) - numbers(frame, "visual_tokens")
    return bool(np.nan_to_num(change).any())


def why_nothing_measured(frame: pd.DataFrame) -> str | None:
    """Describe how the cells ended if none of them was measured; None if at least one was."""
    counts = frame["status"].value_counts()
    if counts.get(Status.OK, 0):
        return None
    ended = ", ".join(f"{counts[status]} {status}" for status in Status if status in counts)
    return f"none of its {len(frame)} cells was measured ({ended})"


def any_measured(frame: pd.DataFrame, column: str) -> bool:
    """Return whether any `ok` row has a value in this column."""
    return bool(np.isfinite(numbers(frame[frame["status"] == Status.OK], column)).any())


def clock_of(frame: pd.DataFrame) -> Clock:
    """Return the clock of a run's stages: the GPU's, if there is one."""
    return "gpu" if any(any_measured(frame, f"gpu_{stage}_s") for stage in STAGES) else "host"


def memory_column(frame: pd.DataFrame) -> str | None:
    """Return the measured column of peak memory: resident memory only without a caching allocator."""
    columns = ("peak_allocated_bytes", "peak_rss_bytes")
    return next((column for column in columns if any_measured(frame, column)), None)


def axis_columns(frame: pd.DataFrame) -> list[str]:
    """Return the axes of a sweep: those that this version knows, and those that its `run.json` names.

    All other columns are fields of a row, or were written by a newer version.
    """
    known = {*AXIS_NAMES, RUN, *frame.attrs.get("axes", ())}
    return [column for column in frame.columns if column in known]


def varying_axes(frame: pd.DataFrame) -> list[str]:
    """Return the axes other than backbone and resolution with more than one value in this frame.

    If every row is of a VLM from transformers, its parts are left out, because its name implies them; so is
    the level if each backbone has only one.
    """
    others = [axis for axis in axis_columns(frame) if axis not in ("backbone", "resolution")]
    if "vlm" in frame and frame["vlm"].notna().all():
        named = frame["vlm"].nunique() == frame["backbone"].nunique()
        others = [axis for axis in others if axis not in (_VLM_AXES if named else _VLM_AXES[1:])]
    varied = [axis for axis in others if len({axis_word(axis, value) for value in frame[axis].unique()}) > 1]
    # the last level, whose number depends on the backbone
    implied = "level" in varied and (frame.groupby("backbone")["level"].nunique() <= 1).all()
    return [axis for axis in varied if not (implied and axis == "level")]


def axis_value(value: object) -> object:
    """Return an axis value as stored: a column in which rows lack one holds NaN, and integers as floats."""
    if value is None or value != value:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def axis_word(axis: str, value: object) -> str:
    """Format an axis value. Rows written before the axis existed have its default."""
    stored = axis_value(value)
    return str(AS_BEFORE.get(axis, "none") if stored is None else stored)


def along(frame: pd.DataFrame) -> Along:
    """Return the axis that lines follow: frames if they vary at one resolution."""
    one_size = frame["resolution"].astype(str).nunique() == 1
    return "frames" if one_size and "frames" in varying_axes(frame) else "resolution"


def split_lines(frame: pd.DataFrame, most: int | None = None) -> list[Line]:
    """Split a frame into lines, in the order of their first rows: at most `most`, from each backbone in turn.

    Raises `UserError` if the frame has no rows or lacks a required column.
    """
    missing = {"cell_id", "backbone", "resolution", "height_px", "width_px", "status"} - set(frame.columns)
    if missing:
        raise UserError(f"these are not rows of a run: there is no column {', '.join(sorted(missing))}")
    if frame.empty:
        raise UserError("the run has no rows yet; run the sweep first")
    axes, followed = _line_axes(frame), along(frame)
    size = numbers(frame, "height_px") * numbers(frame, "width_px")
    if followed == "frames":
        size = np.nan_to_num(numbers(frame, "frames"), nan=1.0)
    numbered = frame.assign(size=size, line=_line_numbers(frame, axes), place=np.arange(len(frame)))
    if most is not None:
        firsts = numbered.drop_duplicates("line").sort_values("line")
        numbered = numbered[numbered["line"].isin(in_turn(list(firsts["backbone"]), most))]
    lines = []
    for _, rows in numbered.sort_values("size", kind="stable").groupby("line"):
        values = {axis: axis_word(axis, rows[axis].iloc[0]) for axis in axes}
        in_order = rows.drop(columns=["line", "place"]).reset_index(drop=True)
        backbone, places = str(rows["backbone"].iloc[0]), rows["place"].to_numpy()
        lines.append(Line(backbone, values, in_order, places, followed))
    return lines


def in_turn(backbones: Sequence[str], most: int) -> list[int]:
    """Return the indices of at most `most` lines of these backbones, from each backbone in turn."""
    counts: Counter[str] = Counter()
    turns = []
    for backbone in backbones:
        turns.append(counts[backbone])
        counts[backbone] += 1
    return sorted(sorted(range(len(turns)), key=lambda i: turns[i])[:most])


def count_lines(frame: pd.DataFrame) -> int:
    """Return the number of lines that `split_lines` would find."""
    return int(_line_numbers(frame, _line_axes(frame)).max()) + 1 if len(frame) else 0


def _line_axes(frame: pd.DataFrame) -> list[str]:
    """Return the axes other than the backbone that tell lines apart."""
    followed = along(frame)
    return [axis for axis in varying_axes(frame) if axis != followed]


def _line_numbers(frame: pd.DataFrame, axes: Sequence[str]) -> pd.Series[int]:
    """Return the line number of each row, counted from 0 in the order of first appearance."""
    keys = [frame[axis].map(partial(axis_word, axis)) for axis in ("backbone", *axes)]
    return frame.groupby(keys, sort=False).ngroup()
