"""`vlmprof kernels tables`: what `vlmprof kernels bench --out` kept, as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmprof.errors import UserError, unknown


def tables(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `kernels bench --out` wrote.")],
    format: Annotated[str, typer.Option(help="markdown, latex or csv.")] = "markdown",
) -> None:
    """Print the rows kept in folders as one table of encoders and one of operations."""
    from vlmprof.render.tables.export import SHEET_WRITERS
    from vlmprof.render.tables.kernels import encoder_sheet, operation_sheet

    if format not in SHEET_WRITERS:
        raise unknown("format", format, SHEET_WRITERS)
    found = False
    for stem, make in (("backbones", encoder_sheet), ("bench", operation_sheet)):
        rows = [row for folder in folders for row in _kept(folder / f"{stem}.json")]
        if not rows:
            continue
        found = True
        try:
            sheet = make(rows)
        except (KeyError, TypeError) as error:
            raise UserError(f"{stem}.json holds rows of another kind: {error}") from None
        if format == "markdown":
            print(f"{sheet.note}\n")
        print(SHEET_WRITERS[format][1](sheet))
    if not found:
        names = ", ".join(map(str, folders))
        raise UserError(
            f"no backbones.json or bench.json in {names}; vlmprof kernels bench --out writes them"
        )


def _kept(path: Path) -> list[dict[str, Any]]:
    """The rows in a file, whatever device they are of; none where there is no such file."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is no list of rows")
    return rows
