"""Sheets on a terminal, plain text where there is none."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlmprof.render.tables.sheet import Sheet

_VERDICTS = {"faster": "green", "slower": "red", "unclear": "dim"}


def sheet_table(sheet: Sheet) -> Table:
    """A sheet as a `rich` table; its note is the caption."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=escape(sheet.note), caption_justify="left")
    for column, numeric in zip(sheet.columns, sheet.numeric, strict=True):
        table.add_column(escape(column.title), justify="right" if numeric else "left", overflow="fold")
    for row in sheet.text_rows():
        table.add_row(*map(escape, row), style=_VERDICTS.get(row[-1]) if row else None)
    return table


def console() -> Console:
    """Where commands print: tables in files and pipes keep their columns whatever a terminal's width."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=200, highlight=False)
