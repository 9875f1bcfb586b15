"""Sheets on a terminal: as many columns as fit; plain text in files and pipes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vlmprof.render.labels import value_label
from vlmprof.render.tables.sheet import Column, Sheet, Value, show
from vlmprof.settings import AXIS_NAMES

PIPE_COLUMNS = 200
"""Width of output to a file or a pipe."""

_GAP = 2
_LONG, _LEAST = 30, 24
"""Text columns wider than the first may be wrapped, but not below the second."""
_MANY = 1000
"""Files and pipes get more rows than this unwrapped: wrapping takes a millisecond per row."""
_STYLES = {
    "faster": "green", "slower": "red", "unclear": "dim", "out of memory": "red", "failed": "red",
    "timed out": "yellow", "skipped": "dim",
}  # fmt: skip
"""The style of a row by the start of its last column."""


def console() -> Console:
    """Return the console of commands. Files and pipes get all columns, and each sentence on one line."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=PIPE_COLUMNS, highlight=False, soft_wrap=True)


def print_sheet(screen: Console, sheet: Sheet) -> None:
    """Print the head, the rows and the note of a sheet.

    On a narrow terminal, columns with one value move above the table; then columns with the highest ranks are
    omitted and listed below. Columns with rank 0 always stay. If the columns of ranks 0 and 1 do not fit, the
    axes of each row are in a line of their own above it.
    """
    axes = _axes_of(sheet)
    fitted = _fit(sheet, screen.width)
    apart = len(axes) > 1 and len(sheet) > 0 and not fitted.complete
    if apart:
        others = [column for column in sheet.columns if column not in axes]
        fitted = _fit(replace(sheet, columns=others), screen.width - _GAP)
    same = ", ".join(filter(None, [sheet.head, *fitted.same]))
    if same:
        screen.print(same, markup=False, highlight=False)
    if apart:
        _print_apart(screen, _names(axes), fitted)
    elif fitted.width <= screen.width or (len(fitted.rows) > _MANY and not screen.is_terminal):
        _print_lines(screen, fitted)
    else:
        screen.print(_table(fitted), soft_wrap=False)
    if fitted.left_out:
        words = f"not shown at this width: {', '.join(fitted.left_out)}"
        screen.print(words, markup=False, highlight=False, style="dim")
    if sheet.note:
        screen.print(sheet.note, markup=False, highlight=False, style="italic dim")


@dataclass(frozen=True)
class _Fitted:
    """The printed columns of a sheet, formatted."""

    titles: Sequence[str]
    numeric: Sequence[bool]
    widths: Sequence[int]
    rows: Sequence[Sequence[str]]
    same: Sequence[str]
    left_out: Sequence[str]
    complete: bool
    """Whether the columns of ranks 0 and 1 are there and fit."""

    @property
    def width(self) -> int:
        return sum(self.widths) + _GAP * (len(self.widths) - 1)


def _fit(sheet: Sheet, columns: int) -> _Fitted:
    rows = [[text.replace("\n", " ") for text in row] for row in sheet.text_rows()]
    texts = list(zip(*rows, strict=True)) if rows else [()] * len(sheet.columns)
    titles = [column.title for column in sheet.columns]
    widths = [max(map(cell_len, (title, *text))) for title, text in zip(titles, texts, strict=True)]
    kept = [i for i, column in enumerate(sheet.columns) if not column.rank or any(texts[i])]
    same, left_out = [], []

    def too_wide() -> bool:
        return sum((widths[i] if widths[i] <= _LONG else _LEAST) + _GAP for i in kept) - _GAP > columns

    for i in list(kept):
        if sheet.columns[i].rank and len(rows) > 1 and len(set(texts[i])) == 1 and too_wide():
            kept.remove(i)
            same.append(f"{titles[i]} {texts[i][0]}")
    for i in sorted(kept, key=lambda i: (-sheet.columns[i].rank, -i)):
        if sheet.columns[i].rank and too_wide():
            kept.remove(i)
            left_out.append(titles[i])
    return _Fitted(
        titles=[titles[i] for i in kept],
        numeric=[sheet.numeric[i] for i in kept],
        widths=[widths[i] for i in kept],
        rows=[[row[i] for i in kept] for row in rows],
        same=same,
        left_out=[title for title in titles if title in left_out],
        complete=not too_wide() and all(c.rank > 1 or c.title not in left_out for c in sheet.columns),
    )


def _axes_of(sheet: Sheet) -> Sequence[Column]:
    """Return the columns that name a row's configuration, one per axis."""
    named = {"run", *(axis.replace("_", " ") for axis in AXIS_NAMES)}
    return [column for column in sheet.columns if not column.rank and column.title in named]


def _names(axes: Sequence[Column]) -> list[str]:
    """Return the name of each row: `ViT-T · 448² · mlp2 · no tiles · 4 frames`."""

    def word(column: Column, value: Value) -> str:
        text, axis = show(column.kind, value), column.title.replace(" ", "_")
        return text if axis in ("backbone", "resolution") else value_label(axis, text)

    columns = [[word(column, value) for value in column.values] for column in axes]
    return [" · ".join(words) for words in zip(*columns, strict=True)]


def _print_apart(screen: Console, names: Sequence[str], fitted: _Fitted) -> None:
    """Print rows below their names, those of one name together."""
    long = sum(width > _LONG for width in fitted.widths)
    room = screen.width - fitted.width - _GAP + sum(width for width in fitted.widths if width > _LONG)
    widths = [min(width, room // long) if width > _LONG else width for width in fitted.widths]

    def print_rows(rows: Sequence[Sequence[str]], header: bool = False) -> None:
        part = _table(replace(fitted, rows=rows), widths, show_header=header)
        screen.print(Padding(part, (0, 0, 0, _GAP)), soft_wrap=False)

    print_rows([], header=True)
    for name, own in groupby(zip(names, fitted.rows, strict=True), key=lambda pair: pair[0]):
        screen.print(Text(name), soft_wrap=False)
        print_rows([row for _, row in own])


def _print_lines(screen: Console, fitted: _Fitted) -> None:
    """Print the table without rich's layout, which is much faster when nothing is wrapped."""

    def line(words: Sequence[str]) -> str:
        padded = [
            " " * (width - cell_len(word)) + word if numeric else word + " " * (width - cell_len(word))
            for word, width, numeric in zip(words, fitted.widths, fitted.numeric, strict=True)
        ]
        return (" " * _GAP).join(padded)

    screen.print(Text(line(fitted.titles), style="bold"))
    plain: list[str] = []
    for row in fitted.rows:
        style = _style(row)
        if style is None:
            plain.append(f"{line(row)}\n")
            continue
        screen.file.write("".join(plain))
        plain.clear()
        screen.print(Text(line(row), style=style))
    screen.file.write("".join(plain))


def _table(fitted: _Fitted, widths: Sequence[int] | None = None, show_header: bool = True) -> Table:
    """Return the table with columns of these widths, or of those that rich finds."""
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=show_header)
    for i, (title, numeric) in enumerate(zip(fitted.titles, fitted.numeric, strict=True)):
        fold = widths is not None or fitted.widths[i] > _LONG
        table.add_column(
            escape(title), justify="right" if numeric else "left", overflow="fold" if fold else "ellipsis",
            width=widths[i] if widths else None,
        )  # fmt: skip
    for row in fitted.rows:
        table.add_row(*map(escape, row), style=_style(row))
    return table


def _style(row: Sequence[str]) -> str | None:
    last = row[-1] if row else ""
    return next((style for words, style in _STYLES.items() if last.startswith(words)), None)
