"""Tables as data: typed columns that are rendered as HTML, Markdown, LaTeX, CSV or on a terminal.

A value with an interval is a list `[value, low, high]`, to be valid JSON; unknown values are null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from vlmprof.analysis.intervals import Interval
from vlmprof.measure.statistics import Floats
from vlmprof.units import bytes_unit, seconds_unit

Value = str | int | float | list[float] | None


class Kind(StrEnum):
    """The kind of a column's values, which determines formatting and sorting."""

    TEXT = "text"
    COUNT = "count"
    SECONDS = "seconds"
    BYTES = "bytes"
    RATIO = "ratio"
    PERCENT = "percent"
    NUMBER = "number"
    PIXELS = "pixels"


@dataclass(frozen=True)
class Column:
    """One column of a sheet."""

    title: str
    kind: Kind
    values: Sequence[Value]
    rank: int = 0
    """Narrow terminals omit columns with the highest rank first; those with rank 0 are always shown."""
    half_width: bool = False
    """Whether to show intervals by their half-width, `12.3 ms ± 2.1 %`, instead of their ends."""
    key: str = ""
    """The column's name for programs, with its unit, as in rows: `gpu_vision_s`. By default, of the title."""
    raw: Sequence[Any] | None = None
    """The values for programs, where `values` are words: `vit-t` for `ViT-T`."""


@dataclass(frozen=True)
class Sheet:
    """One table."""

    name: str
    """A word for file names and anchors."""
    title: str
    note: str
    """A sentence or two that explain the table."""
    columns: Sequence[Column] = field(default_factory=tuple)
    head: str = ""
    """Values that are the same in every row, shown once above a printed table."""

    def __len__(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    @property
    def numeric(self) -> list[bool]:
        """Return for each column whether it is numeric."""
        return [column.kind is not Kind.TEXT for column in self.columns]

    def text_rows(self, most: int | None = None) -> list[list[str]]:
        """Return the formatted cells of at most `most` rows."""
        shown = [
            [(show_half_width if column.half_width else show)(column.kind, v) for v in column.values[:most]]
            for column in self.columns
        ]
        return [list(row) for row in zip(*shown, strict=True)]


def show(kind: Kind, value: Value) -> str:
    """Format a value with its unit and its interval, if any: `12.3 (12.1 to 12.6) ms`. Null is empty."""
    if value is None or isinstance(value, str):
        return value or ""
    numbers = [float(v) for v in (value if isinstance(value, list) else [value])]
    unit, size = _unit(kind, numbers)
    if kind is Kind.COUNT:
        words = [f"{v:,.0f}" for v in numbers]
    elif kind is Kind.PIXELS:
        words = [f"{max(v, 0.0) ** 0.5:,.0f}²" for v in numbers]
    else:
        words = [_digits(v / size) for v in numbers]
    text = words[0] if len(words) == 1 else f"{words[0]} ({words[1]} to {words[2]})"
    return f"{text}{unit}"


def show_half_width(kind: Kind, value: Value) -> str:
    """Format a value with the half-width of its interval: `12.3 ms ± 2.1 %`."""
    if not isinstance(value, list):
        return show(kind, value)
    middle, low, high = value
    if middle <= 0:
        return show(kind, middle)
    percent = 100 * (high - low) / 2 / middle
    return f"{show(kind, middle)} ± {percent_width(percent)}"


def percent_width(percent: float) -> str:
    """Format the half-width of an interval in percent: `2.1 %`, and `over 100 %` for any more."""
    width = "over 100" if percent > 100 else f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
    return f"{width} %"


def interval_values(interval: Interval | None) -> list[float] | None:
    """Convert an interval to the form used in sheets."""
    return None if interval is None else [interval.value, interval.low, interval.high]


def column_values(numbers: Floats, ends: Floats | None = None) -> list[Value]:
    """Convert an array to the form used in sheets: null for NaN, with intervals from `ends`, shape (n, 2)."""
    values: list[Value] = [None if value != value else value for value in numbers.tolist()]
    if ends is not None:
        for i in np.flatnonzero(np.isfinite(ends[:, 0]) & np.isfinite(numbers)).tolist():
            values[i] = [float(numbers[i]), *ends[i].tolist()]
    return values


def unit_of_kind(kind: Kind, largest: float) -> tuple[str, float]:
    """Return the best unit for values of a kind up to `largest`, and its size; plain numbers have no unit."""
    if kind is Kind.SECONDS:
        return seconds_unit(largest)
    return bytes_unit(largest) if kind is Kind.BYTES else ("", 1.0)


def _unit(kind: Kind, numbers: Iterable[float]) -> tuple[str, float]:
    if kind in (Kind.SECONDS, Kind.BYTES):
        unit, size = unit_of_kind(kind, max(map(abs, numbers)))
        return f" {unit}", size
    return {Kind.RATIO: ("×", 1.0), Kind.PERCENT: (" %", 0.01)}.get(kind, ("", 1.0))


def _digits(value: float) -> str:
    """Format three significant digits, avoiding an exponent if possible."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        decimals = 2 if value == 0 else max(0, 2 - int(np.floor(np.log10(float(f"{abs(value):.2e}")))))
        return f"{value:,.{decimals}f}"
    return f"{value:.2e}"


def sheet_records(sheet: Sheet) -> list[dict[str, Any]]:
    """Convert the sheet to plain rows for CSV: raw numbers, with intervals in three columns."""
    units = {Kind.SECONDS: " (s)", Kind.BYTES: " (bytes)", Kind.PIXELS: " (pixels)"}
    records: list[dict[str, Any]] = [{} for _ in range(len(sheet))]
    for column in sheet.columns:
        unit = units.get(column.kind, "")
        names = [f"{column.title}{end}{unit}" for end in ("", " low", " high")]
        _add(records, names, column.kind, column.values)
    return records


def program_rows(sheet: Sheet) -> list[dict[str, Any]]:
    """Convert the sheet to rows for programs: raw values in base units by key.

    The ends of intervals have columns of their own: `gpu_vision_low_s` and `gpu_vision_high_s`.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(len(sheet))]
    for column in sheet.columns:
        key = column.key or _key(column)
        if column.raw is None:
            _add(rows, [key, _end_key(key, "low"), _end_key(key, "high")], column.kind, column.values)
        else:
            for row, value in zip(rows, column.raw, strict=True):
                row[key] = _whole(column.kind, value)
    return rows


def _add(
    records: Sequence[dict[str, Any]], names: Sequence[str], kind: Kind, values: Sequence[Value]
) -> None:
    """Add values to records under the first name, and the ends of intervals under the other two."""
    wide = any(isinstance(value, list) for value in values)
    for record, value in zip(records, values, strict=True):
        parts = value if isinstance(value, list) else [value, None, None]
        record |= zip(names if wide else names[:1], [_whole(kind, parts[0]), *parts[1:]], strict=False)


def _whole(kind: Kind, value: Value) -> Value:
    """Return a count or a number of bytes as an integer, although arrays with gaps hold floats."""
    counted = kind in (Kind.COUNT, Kind.BYTES) and isinstance(value, float) and value.is_integer()
    return int(value) if counted else value  # type: ignore[arg-type]


_UNITS = {Kind.SECONDS: "s", Kind.BYTES: "bytes", Kind.PIXELS: "pixels", Kind.PERCENT: "share"}


def _key(column: Column) -> str:
    """Return the title as a name, with the unit of the column's values."""
    words = re.sub(r"[^a-z0-9]+", "_", column.title.lower()).strip("_")
    return "_".join(filter(None, (words, _UNITS.get(column.kind))))


def _end_key(key: str, end: str) -> str:
    head, _, unit = key.rpartition("_")
    return f"{head}_{end}_{unit}" if head and unit in _UNITS.values() else f"{key}_{end}"
