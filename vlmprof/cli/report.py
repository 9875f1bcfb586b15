"""`vlmprof report`: runs as one HTML file and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; the first run's by default.")] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="html or markdown; repeatable, both by default.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Published points behind the Markdown's figure: kuo2026.")
    ] = None,
) -> None:
    """Write a report: figure, tables per stage, where the time goes, scaling, crossovers, environment."""
    from vlmprof.store import check_runs

    check_runs(*runs)
    from vlmprof.activity import say
    from vlmprof.analysis.runs import load
    from vlmprof.errors import unknown
    from vlmprof.render.report import FORMATS, write_report

    for name in format or ():
        if name not in FORMATS:
            raise unknown("report format", name, FORMATS)
    loaded = []
    for run in runs:
        say(f"reading {run}")
        loaded.append(load(run))
    say("writing the report")
    for path in write_report(loaded, out or runs[0], format or FORMATS, reference):
        print(path)
