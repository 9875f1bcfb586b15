"""Cells that two runs have in common, matched by their axes, and what keeps the others apart.

An axis that does not apply to a backbone, such as `levels` to a ViT, does not tell its cells apart, unless a
run has a cell with several values of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from vlmprof.analysis.frames import axis_columns, axis_word
from vlmprof.backbones.catalog import axis_applies
from vlmprof.errors import UserError, unknown

Key = tuple[str, ...]
"""The values by which a cell is matched, one per axis."""


@dataclass(frozen=True)
class Mismatch:
    """An axis in which cells of two runs differ, with the values of each run as written."""

    axis: str
    a: tuple[str, ...]
    b: tuple[str, ...]

    @property
    def ignorable(self) -> bool:
        """Whether a comparison is meaningful without the axis."""
        return self.axis not in ("backbone", "resolution")


@dataclass(frozen=True)
class Matching:
    """The rows of two frames that belong together."""

    pairs: Sequence[tuple[Mapping[str, str], int, int]]
    """The axes of each common cell, and its positions in the two frames."""
    only_a: Sequence[tuple[Mapping[str, str], int]]
    only_b: Sequence[tuple[Mapping[str, str], int]]
    mismatches: Sequence[Mismatch]
    """The axes that keep the other cells apart; empty if one run simply has cells that the other lacks."""


def match_cells(a: pd.DataFrame, b: pd.DataFrame, ignore: Sequence[str] = ()) -> Matching:
    """Match the rows of two frames by their common axes except `ignore`.

    Raises `UserError` if there is no common cell, if the common axes do not identify a cell, or if an axis to
    ignore is in neither frame.
    """
    known = {*axis_columns(a), *axis_columns(b)}
    for axis in ignore:
        if axis not in known:
            axes_known = ", ".join(sorted(known))
            raise UserError(f"{unknown('axis to ignore', axis, known)} (the axes are {axes_known})")
    others = set(axis_columns(b)) - set(ignore)
    axes = [axis for axis in axis_columns(a) if axis in others]
    idle: list[str] = []
    for axis in axes:
        if not any(_tells_apart(frame, axes, [*idle, axis]) for frame in (a, b)):
            idle.append(axis)
    keys_a, keys_b = _keys(a, axes, idle), _keys(b, axes, idle)
    _check_unique(keys_a, a, axes, "the first run")
    _check_unique(keys_b, b, axes, "the second run")
    places_a, places_b = ({key: i for i, key in enumerate(keys)} for keys in (keys_a, keys_b))

    def named(key: Key) -> Mapping[str, str]:
        return dict(zip(axes, key, strict=True))

    shared = [key for key in places_a if key in places_b]
    only_a = [key for key in places_a if key not in places_b]
    only_b = [key for key in places_b if key not in places_a]
    mismatches = _mismatches(only_a, only_b, axes)
    if not shared:
        raise UserError(f"the two runs have no cell in common: {mismatch_words(mismatches)}")
    return Matching(
        [(named(key), places_a[key], places_b[key]) for key in shared],
        [(named(key), places_a[key]) for key in only_a],
        [(named(key), places_b[key]) for key in only_b],
        mismatches,
    )


def mismatch_words(mismatches: Sequence[Mismatch]) -> str:
    """Describe mismatches with both sides' values and the options that ignore them."""

    def listed(values: Sequence[str]) -> str:
        return ", ".join(values[:4]) + (", …" if len(values) > 4 else "")

    words = "; ".join(f"{one.axis} is {listed(one.a)} in A and {listed(one.b)} in B" for one in mismatches)
    hint = " ".join(f"--ignore {one.axis}" for one in mismatches if one.ignorable)
    return f"{words}; {hint} compares them anyway" if hint else words


def _tells_apart(frame: pd.DataFrame, axes: Sequence[str], idle: Sequence[str]) -> bool:
    """Return whether different cells would have one key without the `idle` axes that do not apply."""
    keys = _keys(frame, axes, idle)
    return len(set(keys)) < len(keys)


def _keys(frame: pd.DataFrame, axes: Sequence[str], idle: Sequence[str]) -> list[Key]:
    """Return the key of each row. Values of `idle` axes are empty where the axis does not apply."""
    names = [str(name) for name in frame["backbone"]]
    columns = []
    for axis in axes:
        values = frame[axis].map(partial(axis_word, axis)).tolist()
        if axis in idle:
            applies = {name: axis_applies(axis, name) for name in set(names)}
            values = [value if applies[name] else "" for name, value in zip(names, values, strict=True)]
        columns.append(values)
    return list(zip(*columns, strict=True)) if columns else [()] * len(frame)


def _check_unique(keys: Sequence[Key], frame: pd.DataFrame, axes: Sequence[str], which: str) -> None:
    if len(set(keys)) == len(keys):
        return
    lacking = [axis for axis in axis_columns(frame) if axis not in axes and frame[axis].nunique() > 1]
    raise UserError(
        f"{which} has cells that differ only in an axis that the other run lacks or that is ignored: "
        f"{', '.join(lacking) or 'repeat'}"
    )


def _mismatches(only_a: Sequence[Key], only_b: Sequence[Key], axes: Sequence[str]) -> list[Mismatch]:
    """Return the axes without which unmatched cells would match; if no single one, those without a common
    value."""
    if not only_a or not only_b:
        return []

    def values(keys: Sequence[Key], i: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key[i] for key in keys if key[i]))

    def without(keys: Sequence[Key], i: int) -> set[Key]:
        return {key[:i] + key[i + 1 :] for key in keys}

    places = range(len(axes))
    blocking = [i for i in places if without(only_a, i) & without(only_b, i)]
    if not blocking:
        blocking = [i for i in places if not set(values(only_a, i)) & set(values(only_b, i))] or list(places)
    found = []
    for i in blocking:
        apart_a = [key for key in only_a if key[:i] + key[i + 1 :] in without(only_b, i)] or only_a
        apart_b = [key for key in only_b if key[:i] + key[i + 1 :] in without(only_a, i)] or only_b
        found.append(Mismatch(axes[i], values(apart_a, i), values(apart_b, i)))
    return found
