"""The Typer application: the main job's commands here (sweep, plan, plot), the others in their own files."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import vlmprof
from vlmprof.cli import backbones, kernels
from vlmprof.cli.compare import compare
from vlmprof.cli.estimate import estimate
from vlmprof.cli.export import export
from vlmprof.cli.frontier import frontier
from vlmprof.cli.kernels_tables import tables
from vlmprof.cli.options import spec_options
from vlmprof.cli.recommend import recommend
from vlmprof.cli.report import report
from vlmprof.cli.tables import SaveOption
from vlmprof.cli.trace import trace
from vlmprof.cli.vlms import vlms
from vlmprof.errors import UserError
from vlmprof.logs import log_to_stderr

app = typer.Typer(
    help="What a vision encoder costs inside a vision-language model, measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STOPS = (signal.SIGINT, signal.SIGTERM)

SpecArgument = Annotated[
    str | None, typer.Argument(help="A TOML file or a shipped name; by default the one for this machine.")
]


def _version(wanted: bool) -> None:
    if wanted:
        print(vlmprof.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log cells and devices to standard error; -vv processes too.",
        ),
    ] = 0,
) -> None:
    if verbose:
        log_to_stderr(logging.INFO if verbose == 1 else logging.DEBUG)


@app.command()
@spec_options
def sweep(
    overrides: dict[str, Any],
    spec: SpecArgument = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME by default.")] = None,
    retry: Annotated[list[str] | None, typer.Option(help="Run cells with this status again.")] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(help="One cell at a time on each of these; repeatable, such as cuda:0."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Run on the Ray cluster at this address; local starts one here.")
    ] = None,
) -> None:
    """Measure every cell of a sweep; leave rows, samples and the six-panel figure in a run folder.

    The same command continues a sweep that was interrupted.

    Exit codes:
    0    every cell was measured, ran out of memory or was skipped
    1    a cell ended in an error or a time-out
    2    a mistake in the command or the specification
    130  interrupted
    """
    from vlmprof.cli import show
    from vlmprof.execution.progress import choose_progress
    from vlmprof.execution.sweep import run_sweep
    from vlmprof.records import Status

    checked = _load(spec, overrides)
    folder = out or Path("runs") / (f"{checked.name}-{checked.digest()}" if overrides else checked.name)
    statuses = [_status(word, Status) for word in retry or ()]
    for stop in STOPS:
        signal.signal(stop, _interrupt)
    try:
        run_sweep(
            checked, folder, _command(), choose_progress(), retry=statuses, devices=devices or (), cluster=ray
        )
    except KeyboardInterrupt:
        print(f"interrupted; finished cells are in {folder}, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    if show.run(folder):
        raise typer.Exit(1)


@app.command()
@spec_options
def plan(
    overrides: dict[str, Any],
    spec: SpecArgument = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show each cell's id.")] = False,
    every_cell: Annotated[
        bool, typer.Option("--all", help="Print every cell of a plan too long for a terminal.")
    ] = False,
    save_tables: SaveOption = None,
) -> None:
    """Print the cells of a sweep with their visual tokens, and why any is skipped. Measures nothing."""
    from vlmprof.cli import show
    from vlmprof.plan import make_plan

    checked = _load(spec, overrides)
    show.plan(checked, make_plan(checked), ids, every_cell, save_tables)


@app.command()
def plot(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder; without one the reference alone is drawn.")
    ] = None,
    log: Annotated[bool, typer.Option(help="Logarithmic axes.")] = False,
    reference: Annotated[str | None, typer.Option(help="Published points to draw behind: kuo2026.")] = None,
    format: Annotated[list[str] | None, typer.Option(help="png, pdf or svg; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figure; by default the run's own, or this one.")
    ] = None,
    width: Annotated[str, typer.Option(help="one-column or two-column.")] = "two-column",
    statistic: Annotated[
        str | None, typer.Option(help="mean or median; by default what the run's sampling makes precise.")
    ] = None,
) -> None:
    """Draw the six-panel figure of a run again from its rows, or a published one from its points."""
    from vlmprof.store import check_runs

    check_runs(run)
    from vlmprof.cli import show

    formats = format or ["png", "pdf"]
    if run is not None:
        paths = show.figure(run, out or run, log, reference, formats, width, statistic)
    elif reference is not None:
        paths = show.published_figure(reference, out or Path(), log, formats, width)
    else:
        raise UserError("name a run folder, or --reference kuo2026 to draw the published figure alone")
    for path in paths:
        print(path)


kernels.app.command()(tables)
app.add_typer(kernels.app, name="kernels")
app.add_typer(backbones.app, name="backbones")
for command in (report, compare, recommend, export, estimate, frontier, trace, vlms):
    app.command()(command)


def _load(spec: str | None, overrides: dict[str, Any]) -> Any:
    from vlmprof.environment import has_gpu
    from vlmprof.spec import load_spec

    checked = load_spec(spec or ("kuo2026-fig4" if has_gpu() else "quick"), overrides)
    if checked.settings.image:
        from vlmprof.vlm.image_file import read_rgb_file

        read_rgb_file(Path(checked.settings.image))
    files = {"weights": checked.settings.weights, "study_checkpoint": checked.settings.study_checkpoint}
    for setting, path in files.items():
        if path not in (None, "pretrained") and not Path(path).expanduser().exists():
            raise UserError(f"{setting}: there is no file {path}")
    return checked


def _status(word: str, known: Any) -> Any:
    if word not in {"oom", "error", "timeout"}:
        raise UserError(f"--retry {word!r}: write oom, error or timeout")
    return known(word)


def _command() -> str:
    return shlex.join(["vlmprof", *sys.argv[1:]])


def _interrupt(signum: int, frame: Any) -> None:
    # once is enough: an impatient second one must not cut the clean end short
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt
