"""`vlmprof export`: export the rows, tables and figure of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or the name of a run in runs/.")],
    format: Annotated[
        list[str], typer.Option(help="csv, parquet, latex, markdown, png, pdf or svg. Repeatable.")
    ],
    out: Annotated[Path | None, typer.Option(help="Output folder (default: RUN/export).")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Table to write, such as cells (default: all). Repeatable.")
    ] = None,
    width: Annotated[str, typer.Option(help="Width of the figure: one-column or two-column.")] = "two-column",
) -> None:
    """Write a run's rows (CSV, Parquet), tables (CSV, LaTeX, Markdown) and figure (PNG, PDF, SVG)."""
    from vlmprof.run_list import find_run

    run = find_run(run)
    from vlmprof.activity import say
    from vlmprof.analysis.runs import load
    from vlmprof.render.tables.export import export_run

    say(f"reading {run}")
    loaded = load(run)
    say("writing rows, tables and figures")
    for path in export_run(loaded, out or run / "export", format, table, width):
        print(path)
