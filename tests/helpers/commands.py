"""Commands as a user types them, run in the tests' own process."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from matplotlib.figure import Figure
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
from vlmprof.logs import PACKAGE
from vlmprof.render.figures import six_panel
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.six_panel import save_six_panel


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


def vlmprof(
    folder: Path,
    *words: object,
    encoding: str = "utf-8",
    patience_s: float = 1e9,
    formats: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`: its exit code and output are those of the command in its own process.

    All such commands share one fork server, so a sweep does not spend seconds on importing torch. By default
    no command says what takes so long, as it would on a slow machine, and the scaling figure of a sweep is
    drawn but saved as a blank PNG, because layout and rendering take longer than some cells; `formats` saves
    it in these.
    """
    typed = ["vlmprof", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2))
    level = PACKAGE.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", typed)
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr("vlmprof.activity.PATIENCE_S", patience_s)
        save = partial(six_panel.save_six_panel, formats=formats) if formats else _save_blank
        patch.setattr(six_panel, "save_six_panel", save)
        patch.setattr(PACKAGE, "handlers", list(PACKAGE.handlers))
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            PACKAGE.setLevel(level)
            _forget_modules_of(folder)
    assert isinstance(code, int)
    out.seek(0)
    err.seek(0)
    return subprocess.CompletedProcess(typed, code, out.read(), err.read())


def _save_blank(*run: Any, formats: Sequence[str] = (), **options: Any) -> list[Path]:
    """Save the figure as asked, or draw it and save a blank one if no format is asked for."""
    if formats:
        return save_six_panel(*run, formats=formats, **options)

    def save(figure: Figure, *where: Any) -> list[Path]:
        return save_figure(Figure(figsize=(1, 1)), *where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(six_panel, "save_figure", save)
        return save_six_panel(*run, formats=("png",), **options)


def only_line(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the only line on standard error, with nothing on standard output."""
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def _forget_modules_of(folder: Path) -> None:
    """Another folder's module of the same name is then imported rather than this one's."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]
