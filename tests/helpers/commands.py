"""Commands that read runs, as a user types them."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from tests.helpers.synthetic_runs import samples, sweep, write_run
from vlmprof.cli.app import plot
from vlmprof.cli.compare import compare
from vlmprof.cli.export import export
from vlmprof.cli.recommend import recommend
from vlmprof.cli.report import report
from vlmprof.cli.runs import runs
from vlmprof.errors import UserError


def one_run(path: Path) -> Path:
    """A run of 18 cells, of which VMamba-T's are out of memory from 1024 on."""
    rows = sweep(oom_from={"vmamba-t": 1024})
    return write_run(path, rows, samples(rows, spread=0.01))


def invoke(*words: object) -> Result:
    """Run a command in this process; a user's mistake is raised."""
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (report, compare, recommend, export, plot, runs):
        app.command()(command)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        raise result.exception
    return result
