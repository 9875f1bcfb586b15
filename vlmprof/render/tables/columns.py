"""Columns that several tables share, and the titles of a run's columns. Needs no pandas, as plans do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vlmprof.render.labels import backbone_label
from vlmprof.render.tables.sheet import Column, Kind, Value
from vlmprof.units import show_resolution

SCALED = {
    "host_vision_s": ("host vision", Kind.SECONDS),
    "gpu_vision_s": ("GPU vision", Kind.SECONDS),
    "host_prefill_s": ("host LLM", Kind.SECONDS),
    "gpu_prefill_s": ("GPU LLM", Kind.SECONDS),
    "end_to_end_s": ("end-to-end", Kind.SECONDS),
    "ttft_s": ("TTFT", Kind.SECONDS),
    "tpot_s": ("TPOT", Kind.SECONDS),
    "peak_allocated_bytes": ("peak allocated", Kind.BYTES),
    "peak_rss_bytes": ("peak resident", Kind.BYTES),
}
"""Titles of the columns that scale with the image size."""

_LABELS = {"backbone": backbone_label, "resolution": show_resolution}


def axis_column(axis: str, values: Sequence[Any]) -> Column:
    """Return the column of an axis, with labels of backbones and resolutions."""
    words = [str(value) for value in values]
    if axis in _LABELS:
        labels = {word: _LABELS[axis](word) for word in set(words)}
        words = [labels[word] for word in words]
    return Column(axis.replace("_", " "), Kind.TEXT, words, raw=values)


def scaled_column(title: str, values: Sequence[float | None], size: float, key: str, rank: int = 0) -> Column:
    """Show numbers in a unit of this size, such as GFLOP; programs get the numbers themselves."""
    shown = [None if value is None else value / size for value in values]
    return Column(title, Kind.NUMBER, shown, rank, key=key, raw=values)


def varied_names(rows: Sequence[Mapping[str, Any]], beside: Collection[str]) -> list[str]:
    """Return the names, other than those `beside`, of which the rows have more than one value."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, own in values.items() if name not in beside and len(own - {""}) > 1]


def token_columns(
    visual: Sequence[Value],
    encoder: Sequence[Value] | None,
    tiles: Sequence[Value] | None,
    rank: int = 0,
) -> list[Column]:
    """Return columns of the visual tokens and, before them, of tiles and encoder tokens, unless None."""
    before = rank and rank + 1
    columns = (("tiles", tiles, before), ("encoder tokens", encoder, before), ("visual tokens", visual, rank))
    return [Column(title, Kind.COUNT, values, own) for title, values, own in columns if values is not None]
