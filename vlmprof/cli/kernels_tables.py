"""`vlmprof kernels tables`: print the rows of `vlmprof kernels bench --out` as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmprof.cli import kernels_rows
from vlmprof.errors import UserError, unknown


def tables(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by `kernels bench --out`.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="Format: markdown, latex or csv (default: a table on a terminal, elsewhere markdown)."
        ),
    ] = None,
) -> None:
    """Print the rows in these folders as one table of encoders and one of operations."""
    from vlmprof.render.tables.export import SHEET_WRITERS
    from vlmprof.render.tables.kernels import encoder_sheet, operation_sheet
    from vlmprof.render.tables.terminal import console, print_sheet

    screen = console()
    if format is None and not screen.is_terminal:
        format = "markdown"
    if format is not None and format not in SHEET_WRITERS:
        raise unknown("format", format, SHEET_WRITERS)
    found = False
    for stem, make in (("backbones", encoder_sheet), ("bench", operation_sheet)):
        rows = [row for folder in folders for row in kernels_rows.load(folder / f"{stem}.json")]
        if not rows:
            continue
        found = True
        try:
            sheet = make(rows)
        except (KeyError, TypeError) as error:
            raise UserError(f"{stem}.json holds rows of another kind: {error}") from None
        if format is None:
            print_sheet(screen, sheet)
            continue
        if format == "markdown":
            print(f"{sheet.note}\n")
        print(SHEET_WRITERS[format][1](sheet))
    if not found:
        names = ", ".join(map(str, folders))
        raise UserError(
            f"no backbones.json or bench.json in {names}; vlmprof kernels bench --out writes them"
        )
