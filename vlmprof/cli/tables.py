"""Printing the tables of a command, and optionally writing them to files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmprof.cli.json_output import add_rows

if TYPE_CHECKING:
    from vlmprof.render.tables.sheet import Sheet

SaveOption = Annotated[
    Path | None,
    typer.Option("--save-tables", help="Also write the tables to this folder: CSV, LaTeX and Markdown."),
]


def show_sheet(
    sheet: Sheet, save_to: Path | None = None, rows: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """Print a table and, with `save_to`, write it in every format. Raises `UserError` if that fails.

    For `--json`, `rows` replaces the sheet's own values.
    """
    from vlmprof.render.tables.sheet import program_rows
    from vlmprof.render.tables.terminal import console, print_sheet

    print_sheet(console(), sheet)
    add_rows(sheet.name, program_rows(sheet) if rows is None else rows)
    if save_to is not None:
        from vlmprof.render.tables.export import SHEET_WRITERS, write_sheet

        for kind in SHEET_WRITERS:
            write_sheet(sheet, save_to, kind)
