"""Quality from a table of scores, joined with cells by whichever of its columns name axes.

A column that a table lacks, or leaves empty in a row, applies to all values of that axis.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.frames import axis_columns, axis_word
from vlmprof.analysis.reference import study_scores
from vlmprof.errors import UserError, message_of, unknown
from vlmprof.fields import parse_resolution
from vlmprof.files import read_bytes
from vlmprof.settings import AXIS_NAMES
from vlmprof.units import counted

STUDY = "kuo2026"
"""The name of the study whose released scores are shipped."""

_NO_SCORES = frozenset({"visual_tokens", "parameters_million", *AXIS_NAMES})
_MOST_NAMED = 10

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """The cells that have a score, and what the join did with the others."""

    cells: pd.DataFrame
    names: Sequence[str]
    """The columns of scores."""
    quality: str
    """The score to maximize, which every cell has."""
    remarks: Sequence[str]
    """What matched several cells or none, in a sentence each."""


def load_scores(source: str | Path) -> pd.DataFrame:
    """Load scores by axis values from a CSV file, or the study's by the name `kuo2026`.

    Raises `UserError` if the file cannot be read or has no column of an axis or no score.
    """
    if str(source) == STUDY:
        return study_scores()
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(Path(source))), dtype=dict.fromkeys(AXIS_NAMES, str))
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or message_of(problem)
        raise UserError(f"scores {source} cannot be read: {reason}; pass a CSV file or {STUDY}") from None
    lacks = "" if score_columns(table) else "numeric column"
    if not any(column in AXIS_NAMES for column in table.columns):
        lacks = "backbone, resolution or other axis"
    if lacks:
        raise UserError(f"scores {source} has no {lacks}; write a header like backbone,resolution,accuracy")
    return table


def score_columns(scores: pd.DataFrame) -> list[str]:
    """Return the columns of a table that are scores: all numeric columns except axes, sizes and counts."""
    numeric = scores.dropna(axis="columns", how="all").select_dtypes("number").columns
    return [str(column) for column in numeric if column not in _NO_SCORES]


def pick_score(names: Sequence[str], wanted: str | None) -> str:
    """Return the score to maximize: the wanted one, or else the overall or last one."""
    if wanted is None:
        return next((name for name in names if "overall" in name), names[-1])
    if wanted not in names:
        raise unknown("score", wanted, names)
    return wanted


def with_scores(
    cells: pd.DataFrame, scores: pd.DataFrame, varying: Sequence[str], wanted: str | None = None
) -> Scored:
    """Add the scores to the cells that have the `wanted` one, by default the overall or last. Of several
    scores, a cell has the first in the table. Columns that the cells have themselves are not scores.

    `varying` are the axes in which the cells differ. Raises `UserError` if no cell has a score, or if the
    wanted one is unknown.
    """
    axes = [axis for axis in axis_columns(cells) if axis in scores.columns]
    names = [name for name in score_columns(scores) if name not in cells]
    if not names:
        raise UserError(f"the scores have only columns of a run: {_names(score_columns(scores))}")
    quality = pick_score(names, wanted)
    scores = scores[np.isfinite(scores[quality])]  # a model without this score is no candidate
    matches = _matches(cells, scores, axes)
    scored = matches.any(axis=0)
    if not scored.any():
        table = _names([_named(row, axes) for row in scores.to_dict("records")])
        raise UserError(f"no measured cell has a score; there are scores for {table}")
    first = matches.argmax(axis=0)[scored]
    joined = cells[scored].assign(**{name: scores[name].to_numpy()[first] for name in names})
    return Scored(joined.reset_index(drop=True), names, quality, _remarks(scores, axes, varying, matches))


def _matches(cells: pd.DataFrame, scores: pd.DataFrame, axes: Sequence[str]) -> Mask:
    """Return which scores apply to which cells, shape (scores, cells)."""
    matches = np.ones((len(scores), len(cells)), dtype=bool)
    for axis in axes:
        own = np.array([_word(axis, axis_word(axis, value)) for value in cells[axis]], dtype=object)
        wanted = np.array([_word(axis, value) for value in scores[axis]], dtype=object)
        matches &= (wanted[:, None] == own[None, :]) | (wanted == "")[:, None]
    return matches


def _remarks(scores: pd.DataFrame, axes: Sequence[str], varying: Sequence[str], matches: Mask) -> list[str]:
    found = []
    missing = [axis.replace("_", " ") for axis in varying if axis not in axes]
    if missing:
        found.append(f"the scores do not name {_names(missing)}, so each applies to all values")
    per_score, per_cell = matches.sum(axis=1), matches.sum(axis=0)
    total = counted(len(scores), "score")
    if unmatched := int((per_score == 0).sum()):
        rows = zip(scores.to_dict("records"), per_score, strict=True)
        found.append(
            f"{unmatched} of {total} match no cell: {_names([_named(r, axes) for r, n in rows if not n])}"
        )
    if several := int((per_score > 1).sum()):
        cells = counted(int(matches[per_score > 1].any(axis=0).sum()), "cell")
        found.append(f"{several} of {total} match several cells each, {cells} together")
    if ambiguous := int((per_cell > 1).sum()):
        found.append(f"{counted(ambiguous, 'cell')} with several scores: the first in the file counts")
    if without := int((per_cell == 0).sum()):
        found.append(f"{without} of {counted(len(per_cell), 'cell')} without a score: left out")
    return found


def _word(axis: str, value: object) -> str:
    """Return an axis value as a word that is the same in tables and rows; empty if it is not given."""
    if value is None or value != value:
        return ""
    if axis == "resolution":
        try:
            return parse_resolution(str(value).removesuffix(".0"))
        except UserError:
            return str(value)
    return str(value).strip().removesuffix(".0")


def _named(row: dict[object, object], axes: Sequence[str]) -> str:
    words = {axis: _word(axis, row[axis]) for axis in axes}
    head = [words.pop("backbone", ""), f"at {size}" if (size := words.pop("resolution", "")) else ""]
    rest = ", ".join(f"{axis} {word}" for axis, word in words.items() if word)
    return ", ".join(filter(None, (" ".join(filter(None, head)), rest)))


def _names(words: Sequence[str]) -> str:
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more
