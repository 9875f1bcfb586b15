"""`vlmprof kernels`: verify, time, tune and inspect the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

from vlmprof.cli import kernels_rows
from vlmprof.cli.json_output import json_option, tell
from vlmprof.errors import UserError, check_known, unknown
from vlmprof.settings import Dtype
from vlmprof.units import counted

if TYPE_CHECKING:
    from vlmprof.execution.kernel_runs import KernelRun, Outcome

app = typer.Typer(help="Verify, time and inspect the SS2D kernels.", no_args_is_help=True)

DTYPES = get_args(Dtype)
Value = TypeVar("Value")

DeviceOption = Annotated[
    str | None, typer.Option(help="Device: cuda, cuda:1 or cpu (default: a GPU if there is one).")
]
DtypesOption = Annotated[
    list[str] | None, typer.Option("--dtype", help=f"Data type: {', '.join(DTYPES)}. Repeatable.")
]
BackendsOption = Annotated[
    list[str] | None,
    typer.Option("--backend", help="Backend, such as torch or triton (default: all available). Repeatable."),
]
OpsOption = Annotated[
    list[str] | None, typer.Option("--op", help="Operation to run (default: all). Repeatable.")
]
RowsOption = Annotated[Path | None, typer.Option("--out", help="Folder for the rows as CSV and JSON.")]
ModelOption = Annotated[str, typer.Option(help="Model whose shapes to use: vmamba-t, vmamba-s or vmamba-b.")]
SidesOption = Annotated[
    list[int] | None,
    typer.Option(
        "--resolution", min=16, max=1 << 14, help="Image side in pixels (default: 224). Repeatable."
    ),
]
LevelsOption = Annotated[
    list[int] | None,
    typer.Option("--level", min=1, max=4, help="Feature level (default: 1 to 3; to tune, all). Repeatable."),
]


def _finite(seconds: float) -> float:
    if not 0 <= seconds <= 3600:
        raise UserError(f"--seconds: {seconds:g} is not a number of seconds from 0 to 3600")
    return seconds


SecondsOption = Annotated[
    float, typer.Option("--seconds", callback=_finite, help="Measuring time per row, in seconds.")
]
TimeoutOption = Annotated[
    str, typer.Option("--row-timeout", help="Time limit per row, compilation included, such as 60s.")
]
IsolateOption = Annotated[
    bool,
    typer.Option(
        "--isolate/--no-isolate",
        help="Run each operation in a separate process, or all of them in this one, for a profiler.",
    ),
]


@app.command()
@json_option("kernels verify", tables="verify")
def verify(
    device: DeviceOption = None,
    dtype: DtypesOption = None,
    backend: BackendsOption = None,
    op: OpsOption = None,
    row_timeout: TimeoutOption = "180s",
    isolate: IsolateOption = True,
    out: RowsOption = None,
) -> None:
    """Compare every operation with a float64 reference.

    Exits with code 1 if an error exceeds its limit, a small multiple of the error of plain PyTorch code. Each
    operation runs in a separate process, so that a crash or a hang becomes a row.
    """
    dtypes = _dtypes(dtype) or DTYPES
    run = _open(device, backend, isolate, row_timeout, out)
    operations = _operations(run, op)
    file = kernels_rows.RowFile("verify", out)
    kernels_rows.print_folded(
        f"{'op':20} {'case':30} {'dtype':9} {'backend':8}", f"{'error':>8} {'plain':>8} {'limit':>8}"
    )

    def show(outcome: Outcome) -> None:
        kernels_rows.print_verdict(outcome)
        file.add(kernels_rows.verdict_row(outcome, run.environment))

    for name in operations:
        run.attempt_all("verify", (name, dtypes, run.backends), {"op": name}, show)
    file.tell()
    failures = sum(not row["passed"] for row in file.rows)
    tell(f"{counted(len(file.rows), 'comparison')} on {run.device}, {failures} failed")
    if failures:
        raise typer.Exit(1)


@app.command()
@json_option("kernels bench", tables="bench or, with --backbones, backbones")
def bench(
    device: DeviceOption = None,
    dtype: DtypesOption = None,
    backend: BackendsOption = None,
    model: ModelOption = "vmamba-t",
    resolution: SidesOption = None,
    level: LevelsOption = None,
    op: OpsOption = None,
    seconds: SecondsOption = 0.5,
    peers: Annotated[bool, typer.Option(help="Also time other implementations of SS2D.")] = False,
    public: Annotated[
        Path | None, typer.Option(help="Also time the VMamba code in this checkout of MzeroMiko/VMamba.")
    ] = None,
    backbones: Annotated[
        list[str] | None,
        typer.Option(
            help="Time backbones instead of operations and compare with the paper, such as vmamba-t,vmamba-b."
        ),
    ] = None,
    levels: Annotated[
        str, typer.Option(help="Levels of --backbones to run: all (as in the paper) or through-tap.")
    ] = "all",
    mode: Annotated[
        list[str] | None,
        typer.Option(help="Mode of --backbones: eager, compile, graphs, fused, …. Repeatable."),
    ] = None,
    row_timeout: TimeoutOption = "300s",
    isolate: IsolateOption = True,
    out: RowsOption = None,
) -> None:
    """Time the operations at VMamba's shapes, next to a large copy and a large matrix product.

    Each operation, or each backbone at one resolution, runs in a separate process. Exits with code 1 if one
    fails.
    """
    from vlmprof.execution.kernel_runs import BenchJob, EncoderJob

    dtypes = _dtypes(dtype)
    sizes = _once(resolution or [224])
    if backbones is not None:
        from vlmprof.cli.kernels_encoders import backbone_names, bench_backbones

        if len(dtypes) > 1:
            raise UserError("--backbones takes one --dtype")
        unused = {"--op": op, "--backend": backend, "--level": level, "--peers": peers}
        if given := [name for name, value in unused.items() if value]:
            raise UserError(f"{given[0]} does not apply to --backbones")
        names = backbone_names(backbones)
        run = _open(device, None, isolate, row_timeout, out)
        kind = (dtypes or (_default_dtype(run),))[0]
        modes = tuple(kernels_rows.FORMER_MODES.get(name, name) for name in mode or ())
        asked = EncoderJob("", 0, kind, levels, modes, public, seconds)
        failures = bench_backbones(run, names, sizes, asked, out)
    else:
        from vlmprof.cli.kernels_operations import bench_operations

        if mode:
            raise UserError("--mode applies to --backbones only")
        run = _open(device, backend, isolate, row_timeout, out)
        check_known("model", [model], run.models)
        job = BenchJob(
            "", model, sizes, _once(level or (1, 2, 3)), dtypes or (_default_dtype(run),), run.backends, (),
            public, seconds, {},
        )  # fmt: skip
        failures = bench_operations(run, _operations(run, op), job, peers, out)
    if failures:
        raise typer.Exit(1)


@app.command()
def tune(
    op: Annotated[
        list[str] | None, typer.Option(help="Operation: ss2d (default) or linear. Repeatable.")
    ] = None,
    dtype: DtypesOption = None,
    model: ModelOption = "vmamba-t",
    resolution: SidesOption = None,
    level: LevelsOption = None,
    row_timeout: TimeoutOption = "180s",
    isolate: IsolateOption = True,
) -> None:
    """Find and store the best launch parameters of ss2d, or of a block's matrix products, on this GPU.

    No other command tunes.

    The parameters are stored in the file named by VLMPROF_TUNING_CACHE, or in vlmprof/ss2d-tuning.json in the
    user's cache folder.
    """
    from vlmprof.execution.kernel_runs import TuneJob

    dtypes = _dtypes(dtype)
    for name in op or ():
        if name not in ("ss2d", "linear"):
            raise UserError(f"--op: {name!r} is not tuned; ss2d and linear are")
    run = _open(None, None, isolate, row_timeout)
    check_known("model", [model], run.models)
    if run.why_not_triton:
        raise UserError(f"tuning needs the triton backend: {run.why_not_triton}")
    statuses = []

    def show(outcome: Outcome) -> None:
        statuses.append(outcome.status)
        kernels_rows.print_tuned(outcome)

    for kind in dtypes or (_default_dtype(run),):
        for name in op or ("ss2d",):
            job = TuneJob(name, model, kind, _once(resolution or [224]), _once(level or (1, 2, 3, 4)))
            run.attempt_all("tune", (job,), {"shape": model, "dtype": kind}, show)
    print(f"kept in {run.call('tuning_path')}")
    if {*statuses} - {"ok"}:
        raise typer.Exit(1)


@app.command()
@json_option("kernels inspect", tables="inspect")
def inspect(
    arch: Annotated[
        list[str] | None, typer.Option(help="Architecture: sm_80, sm_90 or sm_100. Repeatable.")
    ] = None,
    kernel: Annotated[str, typer.Option(help="Only kernels whose name contains this.")] = "",
    mix: Annotated[bool, typer.Option(help="Also print the instruction mix of each kernel.")] = False,
) -> None:
    """Compile the kernels without a GPU and print their registers, spills and instructions.

    Exits with code 1 if a kernel for d_state 1 spills, or if any kernel fails to compile. Results are cached
    until a kernel changes.
    """
    from vlmprof.cli.kernels_inspect import inspect_kernels

    inspect_kernels(arch or ["sm_90"], kernel, mix)


@app.command()
def tables(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by `kernels bench --out`.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="Format: markdown, latex or csv (default: a table on a terminal, elsewhere markdown)."
        ),
    ] = None,
) -> None:
    """Print the rows in these folders as one table of encoders and one of operations."""
    from vlmprof.render.tables.export import SHEET_WRITERS
    from vlmprof.render.tables.kernels import encoder_sheet, operation_sheet
    from vlmprof.render.tables.terminal import console, print_sheet

    screen = console()
    if format is None and not screen.is_terminal:
        format = "markdown"
    if format is not None and format not in SHEET_WRITERS:
        raise unknown("format", format, SHEET_WRITERS)
    found = False
    for stem, make in (("backbones", encoder_sheet), ("bench", operation_sheet)):
        rows = [row for folder in folders for row in kernels_rows.load(folder / f"{stem}.json")]
        if not rows:
            continue
        found = True
        try:
            sheet = make(rows)
        except (KeyError, TypeError) as error:
            raise UserError(f"{stem}.json holds rows of another kind: {error}") from None
        if format is None:
            print_sheet(screen, sheet)
            continue
        if format == "markdown":
            print(f"{sheet.note}\n")
        print(SHEET_WRITERS[format][1](sheet))
    if not found:
        names = ", ".join(map(str, folders))
        raise UserError(
            f"no backbones.json or bench.json in {names}; vlmprof kernels bench --out writes them"
        )


def _open(
    device: str | None,
    backends: Sequence[str] | None,
    isolate: bool,
    row_timeout: str,
    out: Path | None = None,
) -> KernelRun:
    from vlmprof.execution.kernel_runs import open_run
    from vlmprof.store import check_can_hold_a_run
    from vlmprof.units import parse_seconds

    if out is not None:
        check_can_hold_a_run(out, "the folder")
    return open_run(device, _once(backends or ()), isolate, parse_seconds(row_timeout, "--row-timeout"))


def _once(values: Iterable[Value]) -> tuple[Value, ...]:
    """Drop the values that repeat: an option given twice counts once."""
    return tuple(dict.fromkeys(values))


def _operations(run: KernelRun, asked: Sequence[str] | None) -> tuple[str, ...]:
    check_known("operation", asked or (), run.operations)
    return _once(asked or run.operations)


def _dtypes(names: Sequence[str] | None) -> tuple[str, ...]:
    check_known("dtype", names or (), DTYPES)
    return _once(names or ())


def _default_dtype(run: KernelRun) -> str:
    return "bfloat16" if run.device.startswith("cuda") else "float32"
