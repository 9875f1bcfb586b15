"""The Typer application with the main commands (sweep, plan, plot); the others are in files of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

import vlmprof
from vlmprof import files
from vlmprof.activity import say
from vlmprof.cli import kernels
from vlmprof.cli.backbones import backbones
from vlmprof.cli.compare import compare
from vlmprof.cli.estimate import estimate
from vlmprof.cli.export import export
from vlmprof.cli.frontier import frontier
from vlmprof.cli.json_output import json_option, tell
from vlmprof.cli.options import FormatsOption, WidthOption, spec_options, typed, unwrapped
from vlmprof.cli.recommend import recommend
from vlmprof.cli.report import report
from vlmprof.cli.runs import read_run, runs
from vlmprof.cli.stopping import Stopped
from vlmprof.cli.tables import SaveOption
from vlmprof.cli.trace import trace
from vlmprof.cli.vlms import vlms
from vlmprof.errors import UserError, check_known
from vlmprof.logs import log_to_stderr
from vlmprof.units import show_bytes

if TYPE_CHECKING:
    from vlmprof.records import Status
    from vlmprof.spec import SweepSpec

app = typer.Typer(
    help="Measure the cost of vision encoders inside vision-language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecArgument = Annotated[
    str | None,
    typer.Argument(
        help="A TOML file or a shipped specification: by default kuo2026-fig4 on a GPU, quick-gpu if it has "
        "less than 14 GiB, and quick on a CPU."
    ),
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
            help="Log cells and devices to standard error; -vv also logs processes.",
        ),
    ] = 0,
) -> None:
    if verbose:
        log_to_stderr(logging.INFO if verbose == 1 else logging.DEBUG)


@app.command()
@json_option("sweep", tables="cells, the rows of the run folder")
@spec_options
def sweep(
    overrides: dict[str, Any],
    spec: SpecArgument = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/NAME).")] = None,
    repeat: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Measure every cell this often, each time in a new process, one pass over all cells after "
            "another. Intervals then cover the spread between repeats, of which three are the least to be "
            "useful. A larger number adds to a run.",
        ),
    ] = 1,
    retry: Annotated[
        list[str] | None,
        typer.Option(help="Rerun cells with this status: oom, error or timeout. Repeatable."),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(help="Device to run cells on, such as cuda:0, one cell at a time. Repeatable."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster to run on; local starts one on this machine.")
    ] = None,
) -> None:
    """Measure every cell of a sweep and write rows, samples and the six-panel figure to a run folder.

    To resume an interrupted sweep, run the same command again.

    Exits with code 0 if every cell was measured, ran out of memory or was skipped; 1 if a cell failed or
    timed out; 2 for an invalid command or specification; 130 if interrupted (143 if terminated, 129 if hung
    up).
    """
    from vlmprof.cli import show
    from vlmprof.execution.progress import choose_progress
    from vlmprof.execution.sweep import run_sweep

    checked = _load(spec, overrides)
    folder = out or Path("runs") / (f"{checked.name}-{checked.digest()}" if overrides else checked.name)
    statuses = [_status(word) for word in retry or ()]
    try:
        run_sweep(
            checked, folder, typed(), choose_progress(),
            repeats=repeat, retry=statuses, devices=devices or (), cluster=ray,
        )  # fmt: skip
    except Stopped as stop:
        stop.add_note(f"finished cells are in {folder}, and the same command resumes")
        raise
    if show.run(folder):
        raise typer.Exit(1)


@app.command()
@json_option("plan", tables="plan")
@spec_options
def plan(
    overrides: dict[str, Any],
    spec: SpecArgument = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show cell ids.")] = False,
    every_cell: Annotated[
        bool, typer.Option("--all", help="Print every cell, even if the plan is too long for the terminal.")
    ] = False,
    time: Annotated[
        bool, typer.Option("--time", help="Estimate how long it takes on this machine, in a few seconds.")
    ] = False,
    save_tables: SaveOption = None,
) -> None:
    """Print the cells of a sweep with their visual tokens and the reasons for skipping. Measures nothing."""
    from vlmprof.cli import show
    from vlmprof.plan import make_plan

    checked = _load(spec, overrides)
    show.plan(checked, make_plan(checked), ids, every_cell, save_tables, time)


@app.command()
def plot(
    run: Annotated[
        Path | None, typer.Argument(help="A run; without one, only the reference is drawn.")
    ] = None,
    log: Annotated[bool, typer.Option(help="Logarithmic axes of image sizes and latencies.")] = True,
    reference: Annotated[
        str | None, typer.Option(help="Published points to draw in the background: kuo2026.")
    ] = None,
    format: FormatsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the figure (default: the run folder, or the current folder)."),
    ] = None,
    width: WidthOption = "two-column",
    statistic: Annotated[
        str | None,
        typer.Option(help="mean or median (default: median with adaptive sampling, mean with fixed)."),
    ] = None,
) -> None:
    """Redraw the six-panel figure of a run, or draw the published one."""
    if run is None and reference is None:
        raise UserError("pass a run folder, or --reference kuo2026 to draw only the published figure")
    formats = format or ["png", "pdf"]
    if run is None:
        from vlmprof.render.figures.files import save_figure
        from vlmprof.render.figures.six_panel import draw_reference

        figure = draw_reference(str(reference), log=log, width=width)
        paths = save_figure(figure, out or Path(), str(reference), formats)
    else:
        drawn = read_run(run)
        from vlmprof.analysis.frames import Statistic
        from vlmprof.render.figures.six_panel import save_six_panel

        check_known("statistic", [statistic] if statistic is not None else [], get_args(Statistic))
        say("drawing the figure")
        chosen = cast("Statistic | None", statistic) or drawn.statistic
        paths = save_six_panel(
            drawn.frame, out or drawn.folder, drawn.samples,
            formats=formats, statistic=chosen, log=log, reference=reference, width=width,
        )  # fmt: skip
    for path in paths:
        print(path)


app.add_typer(kernels.app, name="kernels")
for command in (report, compare, recommend, export, runs, estimate, frontier, trace, backbones, vlms):
    app.command()(command)
for registered in (*app.registered_commands, *kernels.app.registered_commands):
    # Typer breaks the lines of a help text where those of the docstring end
    registered.help = unwrapped(registered.callback.__doc__ or "")


VICUNA_7B_BYTES = 14 << 30
"""What the paper's LLM needs with the smallest image: 12.8 GiB on an H200, and what the driver takes."""


def _default_spec() -> str:
    """Return the sweep for this machine: the paper's if a GPU has room for its LLM."""
    from vlmprof.environment import gpu_memory_bytes

    memory_bytes = gpu_memory_bytes()
    if memory_bytes is None:
        return "quick"
    if memory_bytes >= VICUNA_7B_BYTES:
        return "kuo2026-fig4"
    room = show_bytes(memory_bytes)
    tell(f"the default here is quick-gpu, because Vicuna-7B of kuo2026-fig4 does not fit into {room}")
    return "quick-gpu"


def _load(spec: str | None, overrides: dict[str, Any]) -> SweepSpec:
    from vlmprof.spec import load_spec

    checked = load_spec(spec or _default_spec(), overrides)
    if checked.settings.image:
        from vlmprof.vlm.image_file import read_rgb_file

        read_rgb_file(Path(checked.settings.image))
    named = {"weights": checked.settings.weights, "study_checkpoint": checked.settings.study_checkpoint}
    for setting, path in named.items():
        if path in (None, "pretrained"):
            continue
        try:
            files.check_regular(files.path_of(path))
        except OSError as problem:
            raise UserError(f"{setting}: {path} is {problem.strerror}") from None
        if not files.exists(files.path_of(path)):
            raise UserError(f"{setting}: there is no file {path}")
    return checked


def _status(word: str) -> Status:
    from vlmprof.records import Status

    if word not in {"oom", "error", "timeout"}:
        raise UserError(f"--retry: {word!r} is not one of oom, error, timeout")
    return Status(word)
