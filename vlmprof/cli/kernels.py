"""`vlmprof kernels`: verify the kernels, time them, look at what they compile to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmprof.cli import kernel_rows
from vlmprof.errors import UserError

if TYPE_CHECKING:
    import torch

    from vlmprof.kernels.bench import BenchRow
    from vlmprof.kernels.verify import Verdict

app = typer.Typer(help="Verify, time and inspect the SS2D kernels.", no_args_is_help=True)

DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, cuda:1 or cpu; by default a GPU where there is one.")
]
DtypesOption = Annotated[list[str] | None, typer.Option("--dtype", help="Repeatable.")]
BackendsOption = Annotated[list[str] | None, typer.Option("--backend", help="Repeatable.")]


@app.command()
def verify(device: DeviceOption = None, dtype: DtypesOption = None, backend: BackendsOption = None) -> None:
    """Compare every operation with float64; exit code 1 when one is worse than the plain code allows."""
    from vlmprof.kernels import verify as checks

    where = _device(device)
    backends = _backends(where, backend)
    print(f"{'op':20} {'case':30} {'dtype':9} {'backend':8} {'error':>8} {'plain':>8} {'limit':>8}")
    failures = count = 0
    for verdict in checks.verify(where, backends, _dtypes(dtype) or checks.DTYPES):
        count += 1
        failures += not verdict.passed
        errors = (verdict.relative_error, verdict.plain_relative_error, verdict.limit)
        print(
            f"{verdict.op:20} {verdict.case:30} {verdict.dtype:9} {verdict.backend:8} "
            f"{' '.join(f'{e:8.1e}' for e in errors)} {_outcome(verdict)}",
            flush=True,
        )
    print(f"{count} comparisons on {where}, {failures} failed")
    if failures:
        raise typer.Exit(1)


def _outcome(verdict: Verdict) -> str:
    if verdict.failure:
        return f"FAILED: {verdict.failure}"
    if verdict.deterministic is False:
        return "NOT DETERMINISTIC"
    return "ok" if verdict.passed else "FAILED"


@app.command()
def bench(
    device: DeviceOption = None,
    dtype: DtypesOption = None,
    backend: BackendsOption = None,
    model: Annotated[str, typer.Option(help="vmamba-t, vmamba-s or vmamba-b: whose shapes.")] = "vmamba-t",
    resolution: Annotated[list[int] | None, typer.Option(help="Pixels; repeatable. 224 by default.")] = None,
    level: Annotated[list[int] | None, typer.Option(help="1 to 4; repeatable. 1 to 3 by default.")] = None,
    op: Annotated[list[str] | None, typer.Option(help="Only these operations; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="Measuring time per row.")] = 0.5,
    peers: Annotated[bool, typer.Option(help="Time other implementations of SS2D too.")] = False,
    public: Annotated[Path | None, typer.Option(help="A checkout of MzeroMiko/VMamba to time.")] = None,
    backbones: Annotated[
        list[str] | None,
        typer.Option(help="Time whole backbones, beside the paper, not operations: vmamba-t,vmamba-b."),
    ] = None,
    levels: Annotated[
        str, typer.Option(help="Of whole backbones: all, as the paper, or through-tap.")
    ] = "all",
    mode: Annotated[
        list[str] | None, typer.Option(help="Of whole backbones: eager, compiled, fused, …; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the rows as CSV and JSON.")] = None,
) -> None:
    """Time the operations at VMamba's shapes beside a large copy and a large matrix product."""
    if backbones is not None:
        from vlmprof.cli.kernels_whole import backbone_names, bench_backbones

        where = _device(device)
        kind, *others_asked = _dtypes(dtype) or (_default_dtype(where),)
        if others_asked:
            raise UserError("--backbones takes one --dtype")
        names = backbone_names(backbones)
        bench_backbones(names, resolution or [224], kind, where, levels, seconds, out, public, mode)
        return
    from vlmprof.kernels import bench as timing
    from vlmprof.kernels.peers import peers as find_peers

    where = _device(device)
    _known_model(model)
    others: dict[str, Any] = {}
    if peers or public is not None:
        try:
            others = find_peers(public)
        except ValueError as error:
            raise UserError(str(error)) from None
    rows: list[BenchRow] = []
    failures = 0
    for kind in _dtypes(dtype) or (_default_dtype(where),):
        ceilings = timing.measure_ceilings(where, kind)
        for size in resolution or [224]:
            for work in timing.workloads(model, size, kind, where, tuple(level or (1, 2, 3)), others):
                if op and work.op not in op:
                    continue
                for name in [*_backends(where, backend), *(others if work.op == "ss2d" else ())]:
                    try:
                        rows.append(timing.measure(work, name, kind, where, ceilings, seconds))
                    except Exception as error:  # one that fails says nothing of the others
                        failures += name not in others
                        why = kernel_rows.reason(error)
                        print(f"{work.op:20} {work.shape:24} {name:10} {why}", flush=True)
                        continue
                    kernel_rows.print_row(rows[-1])
                    if out is not None:
                        kernel_rows.write([asdict(row) for row in rows], out, "bench")
    kernel_rows.print_ratios(rows)
    if out is not None:
        kernel_rows.draw(rows, out)
    if failures:
        raise typer.Exit(1)


@app.command()
def tune(
    dtype: DtypesOption = None,
    model: Annotated[str, typer.Option(help="vmamba-t, vmamba-s or vmamba-b: whose shapes.")] = "vmamba-t",
    resolution: Annotated[list[int] | None, typer.Option(help="Pixels; repeatable. 224 by default.")] = None,
    level: Annotated[list[int] | None, typer.Option(help="1 to 4; repeatable. All by default.")] = None,
) -> None:
    """Measure how ss2d is best launched on this GPU and keep it on disk. Nothing else ever tunes."""
    from vlmprof.kernels import bench as timing
    from vlmprof.kernels.tuning import cache_path

    where = _device(None)
    _known_model(model)
    for kind in _dtypes(dtype) or (_default_dtype(where),):
        for size in resolution or [224]:
            for number in level or (1, 2, 3, 4):
                side, d_inner, dt_rank = timing.level_shape(model, size, number)
                try:
                    from vlmprof.kernels.ss2d.tune import tune_ss2d

                    found = tune_ss2d((1, side, side, d_inner), dt_rank, 1, kind, where)
                except (ImportError, RuntimeError) as error:
                    raise UserError(str(error)) from None
                times = ", ".join(f"{tiles}: {s * 1e3:.3f} ms" for tiles, s in found.seconds.items())
                print(f"{model} {size} level {number}: {found.tiles} tiles per chunk ({times})", flush=True)
    print(f"kept in {cache_path()}")


@app.command()
def inspect(
    arch: Annotated[list[str] | None, typer.Option(help="sm_80, sm_90 or sm_100; repeatable.")] = None,
    kernel: Annotated[str, typer.Option(help="Only kernels whose name holds this.")] = "",
    mix: Annotated[bool, typer.Option(help="Print each kernel's instruction mix too.")] = False,
) -> None:
    """Compile without a GPU; exit code 1 when a d_state 1 kernel spills, or one does not compile.

    What a kernel compiled to is kept, so that it is compiled again only when something of it has changed.
    """
    from vlmprof.cli.kernels_inspect import inspect_kernels

    inspect_kernels(arch or ["sm_90"], kernel, mix)


def _known_model(name: str) -> None:
    from vlmprof.kernels.bench import WIDTHS

    if name not in WIDTHS:
        raise UserError(f"unknown model {name!r}; known: {', '.join(WIDTHS)}")


def _device(name: str | None) -> torch.device:
    import torch

    from vlmprof.measure.clocks import make_current

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use cuda or cpu") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} was asked for; there are {torch.cuda.device_count()}")
    make_current(device)
    return device


def _dtypes(names: Sequence[str] | None) -> tuple[torch.dtype, ...]:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for name in names or ():
        if name not in known:
            raise UserError(f"unknown dtype {name!r}; known: {', '.join(known)}")
    return tuple(known[name] for name in names or ())


def _default_dtype(device: torch.device) -> torch.dtype:
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _backends(device: torch.device, names: Sequence[str] | None) -> list[str]:
    from vlmprof.kernels import resolve_backend
    from vlmprof.kernels.verify import available_backends

    try:
        return [resolve_backend("ss2d", device, name) for name in names or available_backends(device)]
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
