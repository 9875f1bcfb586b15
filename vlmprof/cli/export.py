"""`vlmprof export`: export the rows, tables and figure of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmprof.activity import say
from vlmprof.cli.runs import read_run

if TYPE_CHECKING:
    from vlmprof.analysis.runs import Run


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or the name of a run in runs/.")],
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="csv, parquet, latex, markdown, png, pdf or svg (default: csv, latex, markdown, "
            "png and pdf). Repeatable."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: RUN/export).")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Table to write, such as cells (default: all). Repeatable.")
    ] = None,
    width: Annotated[str, typer.Option(help="Width of the figure: one-column or two-column.")] = "two-column",
) -> None:
    """Write a run's rows (CSV, Parquet), tables (CSV, LaTeX, Markdown) and figure (PNG, PDF, SVG)."""
    read = read_run(run)
    from vlmprof.render.tables.export import export_run

    say("writing rows, tables and figures")
    for path in export_run(read, out or read.folder / "export", format or _usual(read), table, width):
        print(path)


def _usual(run: Run) -> list[str]:
    """Return the default formats, without figures if there is nothing to draw."""
    from vlmprof.analysis.frames import why_nothing_measured

    if (why := why_nothing_measured(run.frame)) is not None:
        print(f"no figure: {why}")
        return ["csv", "latex", "markdown"]
    return ["csv", "latex", "markdown", "png", "pdf"]
