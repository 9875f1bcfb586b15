"""The work of the kernel commands in a child process: one operation or encoder each.

Each generator makes its attempts in a fixed order from number `start`, so that the replacement of a lost
process can continue after the attempt that killed it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vlmprof.environment import accelerator_facts
from vlmprof.errors import UserError, message_of
from vlmprof.execution.kernel_runs import Begun, BenchJob, EncoderJob, Outcome, TuneJob
from vlmprof.kernels import linear, resolve_backend
from vlmprof.kernels.common.backends import OPERATIONS, why_not_triton
from vlmprof.kernels.tools import bench_ops
from vlmprof.kernels.tools import verify as checks
from vlmprof.measure.ceilings import device_ceilings
from vlmprof.measure.clocks import make_current
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.records import Status

Attempt = tuple[Mapping[str, Any], Callable[[], dict[str, Any]]]
"""The labels of an attempt, and the function that runs it and returns its figures."""

Messages = Generator[Begun | Outcome, None, bool]
"""The messages of a process. The return value is whether it completed; if not, it must be replaced."""


def facts(device: str | None, backends: Sequence[str]) -> dict[str, Any]:
    """Return the `accelerator_facts` of `device` (default: a GPU if there is one) and its backends.

    `backends` are the requested ones, or all that run on the device; `why_not_triton` is the reason why
    `triton` does not. Raises `UserError` for a missing device or a backend that does not run on it.
    """
    where = _device(device)
    try:
        chosen = [
            resolve_backend("ss2d", where, name) for name in backends or checks.available_backends(where)
        ]
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
    return {
        **asdict(accelerator_facts(str(where))), "backends": chosen, "why_not_triton": why_not_triton(where),
        "operations": OPERATIONS, "models": tuple(bench_ops.WIDTHS),
    }  # fmt: skip


def known_baselines(public: Path | None) -> tuple[list[str], dict[str, str]]:
    """Return the names of the available baselines, and the reason for each unavailable one.

    Raises `UserError` if `public` is not a checkout of MzeroMiko/VMamba.
    """
    from vlmprof.kernels.tools.baselines import find_baselines

    try:
        found, missing = find_baselines(public)
    except ValueError as error:
        raise UserError(str(error)) from None
    return list(found), missing


def encoder_modes(asked: Sequence[str], names: Sequence[str], levels: str, public: Path | None) -> list[str]:
    """Return the modes to time: the requested ones, or all. Raises `UserError` for an unavailable mode."""
    from vlmprof.kernels.tools import bench_encoder as encoders
    from vlmprof.kernels.tools.official_vmamba import check_checkout

    known = encoders.MODES if public is None else (*encoders.MODES, *encoders.PUBLIC_MODES)
    for mode in asked:
        if mode in encoders.PUBLIC_MODES and public is None:
            raise UserError(f"--mode {mode!r} needs --public, a checkout of MzeroMiko/VMamba")
        if mode not in known:
            raise UserError(f"unknown mode {mode!r}; known: {', '.join(known)}")
    chosen = list(dict.fromkeys(asked or known))
    if public is not None and levels != "all" and any(mode in encoders.PUBLIC_MODES for mode in chosen):
        raise UserError("--public times all levels of a backbone; remove --levels through-tap")
    if public is not None:
        try:
            check_checkout(public, names)
        except ValueError as error:
            raise UserError(str(error)) from None
    return chosen


def ceilings(device: str, dtype: str) -> bench_ops.Ceilings:
    """Measure the ceilings of the device in this dtype."""
    # on a CPU the two products come from different libraries, and either may be faster
    products = (torch.matmul, partial(linear, backend="torch"))
    return bench_ops.Ceilings(**device_ceilings(str(_device(device)), [dtype], products)[dtype])


def verify(device: str, op: str, dtypes: Sequence[str], backends: Sequence[str], start: int) -> Messages:
    """Run every comparison of one operation with float64."""
    where = _device(device)
    todo = checks.comparisons(where, backends, [getattr(torch, dtype) for dtype in dtypes], op)

    def judged(comparison: checks.Comparison) -> dict[str, Any]:
        verdict = comparison.verdict(where)
        return {**asdict(verdict), "passed": verdict.passed}

    attempts = ((c.labels(), lambda c=c: judged(c)) for c in todo)  # type: ignore[misc]
    return _attempted(attempts, start, where)


def bench_operation(device: str, job: BenchJob, start: int) -> Messages:
    """Measure every row of one operation."""
    where = _device(device)
    return _attempted(_bench_attempts(where, job), start, where)


def _bench_attempts(where: torch.device, job: BenchJob) -> Iterator[Attempt]:
    baselines = {}
    if job.baselines:
        from vlmprof.kernels.tools.baselines import find_baselines

        baselines = find_baselines(job.public)[0]
    for dtype in job.dtypes:
        kind = getattr(torch, dtype)
        ceilings = job.ceilings.get(dtype)
        for size in job.resolutions:
            for work in bench_ops.workloads(job.model, size, kind, where, job.levels, baselines):
                if work.op != job.op:
                    continue
                for name in (*job.backends, *job.baselines):
                    labels = {"op": work.op, "shape": work.shape, "dtype": dtype, "backend": name}

                    def row(
                        work: bench_ops.Workload = work, name: str = name, kind: torch.dtype = kind,
                        ceilings: bench_ops.Ceilings | None = ceilings,
                    ) -> dict[str, Any]:  # fmt: skip
                        return asdict(bench_ops.measure(work, name, kind, where, ceilings, job.seconds))

                    yield labels, row


def tune(device: str, job: TuneJob, start: int) -> Messages:
    """Tune an operation at each shape and store the choices on disk."""
    where = _device(device)
    return _attempted(_tune_attempts(where, job), start, where)


def _tune_attempts(where: torch.device, job: TuneJob) -> Iterator[Attempt]:
    from vlmprof.kernels.tools.block_cases import block_products
    from vlmprof.kernels.tools.tune import tune_linear, tune_ss2d

    dtype = getattr(torch, job.dtype)
    for size in job.resolutions:
        for level in job.levels:
            side, d_inner, dt_rank = bench_ops.level_shape(job.model, size, level)
            label = f"{job.model} {size} level {level}"
            if job.op == "ss2d":
                shape = (1, side, side, d_inner)
                run: Callable[[], Any] = partial(tune_ss2d, shape, dt_rank, 1, dtype, where)
                yield {"shape": label, "dtype": job.dtype}, partial(_figures, run)
                continue
            for product in block_products(d_inner // 2):
                run = partial(tune_linear, product, side * side, dtype, where)
                yield {"shape": f"{label} {product.name}", "dtype": job.dtype}, partial(_figures, run)


def _figures(run: Callable[[], Any]) -> dict[str, Any]:
    return asdict(run())


def tuning_path() -> Path:
    """Return the path of the file in which `tune` stores its choices."""
    from vlmprof.kernels.common.tuning_cache import cache_path

    return cache_path()


def bench_encoder(device: str, job: EncoderJob, start: int) -> Messages:
    """Measure every mode of one encoder at one resolution."""
    from vlmprof.backbones import create_backbone
    from vlmprof.kernels.tools.bench_encoder import Encoder, encoder_latency
    from vlmprof.kernels.tools.official_vmamba import public_encoder

    where, kind, side = _device(device), getattr(torch, job.dtype), job.resolution

    def build(kernels: str) -> Encoder:
        if kernels == "public" and job.public is not None:
            return public_encoder(job.public, job.backbone, kind).to(where)
        return create_backbone(
            job.backbone, levels=job.levels, image_size=(side, side), device=where, dtype=kind,
            kernels=kernels,  # type: ignore[arg-type]
        )  # fmt: skip

    def timed(mode: str) -> dict[str, Any]:
        # a CPU generator, so that every device gets the same image
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        return asdict(encoder_latency(build, images.to(where, kind), mode, job.seconds))

    labels = {"backbone": job.backbone, "resolution": side}
    attempts = (({**labels, "mode": mode}, lambda mode=mode: timed(mode)) for mode in job.modes)  # type: ignore[misc]
    return _attempted(attempts, start, where)


def _attempted(attempts: Iterator[Attempt], start: int, device: torch.device) -> Messages:
    todo = islice(attempts, start, None)
    following = next(todo, None)
    while following is not None:
        (labels, attempt), following = following, next(todo, None)
        yield Begun(labels, is_last=following is None)
        outcome = _tried(labels, attempt)
        yield outcome
        if outcome.status is not Status.OK and not _still_works(device):
            return False
    return True


def _tried(labels: Mapping[str, Any], attempt: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return Outcome(labels, Status.OK, figures=attempt())
    except UserError:
        raise
    except Exception as error:  # one failure does not affect the others
        status = Status.OOM if is_out_of_memory(error) else Status.ERROR
        return Outcome(labels, status, message_of(error), type(error).__name__)


def _still_works(device: torch.device) -> bool:
    """Return whether the device is still usable in this process; after some errors every call fails."""
    gc.collect()
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return int(torch.ones(1, device=device).sum().item()) == 1
    except RuntimeError:
        return False


def _device(name: str | None) -> torch.device:
    """Make the device of this name current and return it. Raises `UserError` if there is none."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use cuda or cpu") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device {name!r} does not exist; this machine has {count}, counted from 0")
    make_current(device)
    return device
