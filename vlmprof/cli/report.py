"""`vlmprof report`: write runs as an HTML file and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmprof.activity import say
from vlmprof.cli.runs import read_run


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or names of runs in runs/.")],
    out: Annotated[Path | None, typer.Option(help="Output folder (default: the first run folder).")] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="html or markdown (default: both). Repeatable.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Published points to draw in the Markdown's figure: kuo2026.")
    ] = None,
) -> None:
    """Summarize runs in sentences, and write a report with figures and tables."""
    loaded = [read_run(run) for run in runs]
    from vlmprof.cli import show
    from vlmprof.errors import check_known
    from vlmprof.render.report import FORMATS, write_content
    from vlmprof.render.report.content import gather

    check_known("report format", format or (), FORMATS)
    say("writing the report")
    content = gather(loaded, reference)
    written = write_content(content, out or loaded[0].folder, format or FORMATS)
    show.summary(content.findings, content.notice)
    for path in written:
        print(path)
