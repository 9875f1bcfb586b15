"""Commands that read runs, as a user types them."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.helpers.synthetic_runs import samples, sweep, write_run
from vlmprof.cli import main
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


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The only line on standard error, with nothing on standard output."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line


def vlmprof(*words: object, folder: Path | None = None) -> Ended:
    """Run a whole command line in this process, in `folder`, as `python -m vlmprof` would."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["vlmprof", *map(str, words)])
        # without a first sign of life, which a slow machine would need
        patch.setattr("vlmprof.activity.PATIENCE_S", 1e9)
        if folder is not None:
            patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())
