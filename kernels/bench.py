"""Times of the operations at VMamba's shapes, beside two ceilings measured in the same run.

On a GPU a call is timed between device events, with the cache flushed before it; on a CPU with the host's
clock. No timed call compiles, tunes or allocates for the first time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlmprof.kernels import counts
from vlmprof.kernels.block import depthwise_conv_silu, linear, norm_linear
from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d

WIDTHS = {"vmamba-t": 96, "vmamba-s": 96, "vmamba-b": 128}
"""d_model of the first level; it doubles with each."""

FEWEST_SAMPLES = 5
WARM_UP_CALLS = 5
LONGEST_WARM_UP_S = 5.0
"""On a GPU; calls that take long need fewer."""
FLUSHED_BYTES = 256 << 20
"""Written before each timed call on a GPU: more than any last-level cache."""


@dataclass(frozen=True)
class Ceilings:
    """What this device reaches at best, measured in this run."""

    copy_bytes_per_s: float
    """A large copy, bytes read and bytes written both counted."""
    matmul_flops_per_s: float
    """A large square matrix product in the dtype under test."""


@dataclass(frozen=True)
class BenchRow:
    """One operation at one shape, dtype and backend."""

    op: str
    shape: str
    dtype: str
    backend: str
    launch: str
    """What the launch was chosen by, where it has a choice: `8 tiles by rule`, `4 tiles by tuning`."""
    median_s: float
    quartile_low_s: float
    quartile_high_s: float
    samples: int
    counted_bytes: int
    counted_flops: int
    bytes_per_s: float
    flops_per_s: float
    copy_ceiling_bytes_per_s: float
    matmul_ceiling_flops_per_s: float
    share_of_copy_ceiling: float
    share_of_matmul_ceiling: float


@dataclass(frozen=True)
class Workload:
    """One operation ready to run: `call(backend)` runs it once."""

    op: str
    shape: str
    call: Callable[[str], Tensor]
    work: counts.Counts
    launch: Callable[[str], str] = lambda backend: ""


def samples_of(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Durations in seconds of single calls, at least 5, for about `seconds`, after a warm-up."""
    if device.type == "cuda":
        return _samples_on_gpu(call, device, seconds)
    call()
    durations: list[float] = []
    while sum(durations) < seconds or len(durations) < FEWEST_SAMPLES:
        start = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - start) * 1e-9)
    return durations


def _samples_on_gpu(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    begun_s = lasted_s = time.perf_counter()
    for _ in range(WARM_UP_CALLS):
        before_s = time.perf_counter()
        call()
        torch.cuda.synchronize()
        lasted_s = time.perf_counter() - before_s
        if time.perf_counter() - begun_s > LONGEST_WARM_UP_S:
            break
    at_once = 10 if lasted_s < 0.05 else 1  # in the queue together, so that the host is ahead of short ones
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device=device)
    durations: list[float] = []
    while sum(durations) < seconds or len(durations) < FEWEST_SAMPLES:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(at_once)]
        for before, after in events:
            flushed.zero_()
            before.record()
            call()
            after.record()
        torch.cuda.synchronize()
        durations += [before.elapsed_time(after) * 1e-3 for before, after in events]
    return durations


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """A copy and a matrix product, each large enough to be limited by nothing else: the best of their calls,
    since a ceiling that another program's load has lowered is none."""
    on_gpu = device.type == "cuda"
    source = torch.empty((1 << 30) if on_gpu else (64 << 20), dtype=torch.int8, device=device).zero_()
    target = torch.empty_like(source)
    copy_s = min(samples_of(lambda: target.copy_(source), device, 0.3))
    side = 8192 if on_gpu else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    # on a CPU the two come from different libraries, and either may be the faster one
    products = (lambda: a @ b), (lambda: linear(a, b, backend="torch"))
    with torch.inference_mode():
        matmul_s = min(min(samples_of(product, device, 0.3)) for product in products)
    return Ceilings(2 * source.numel() / copy_s, 2 * side**3 / matmul_s)


def level_shape(model: str, resolution: int, level: int) -> tuple[int, int, int]:
    """Side, d_inner and dt_rank of one of VMamba's levels (1 to 4) for square images of `resolution`."""
    d_model = WIDTHS[model] << (level - 1)
    return resolution // (2 << level), 2 * d_model, -(-d_model // 16)


def workloads(
    model: str,
    resolution: int,
    dtype: torch.dtype,
    device: torch.device,
    levels: tuple[int, ...],
    peers: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Iterator[Workload]:
    """The operations of one block at each of VMamba's levels (1 to 4), square images of `resolution`.

    `peers` are other implementations of `ss2d`, called by their names as if they were backends.
    """
    item = dtype.itemsize
    for level in levels:
        side, d_inner, dt_rank = level_shape(model, resolution, level)
        d_model = d_inner // 2
        length = side * side
        where = f"{model} {resolution} level {level}"
        draw = _drawing(device, dtype)
        x = draw(1, side, side, d_inner)
        parameters = (
            draw(4, dt_rank + 2, d_inner) * d_inner**-0.5,
            draw(4, d_inner, dt_rank) * dt_rank**-0.5,
            draw(4, d_inner).float() - 3.0,
            draw(4 * d_inner, 1).float() * 0.1,
            draw(4 * d_inner).float(),
        )
        yield Workload(
            "ss2d", where, _calling(ss2d, x, *parameters, peers=peers),
            counts.ss2d_counts(1, side, side, d_inner, dt_rank, 1, item),
            partial(_ss2d_launch, x, dt_rank),
        )  # fmt: skip
        decay = -draw(4 * d_inner, 1).float().exp()
        scan = (draw(1, 4 * d_inner, length), draw(1, 4 * d_inner, length), decay)
        groups = (draw(1, 4, 1, length), draw(1, 4, 1, length), parameters[4], parameters[2].flatten(), True)
        yield Workload(
            "selective_scan", where, _calling(selective_scan, *scan, *groups),
            counts.selective_scan_counts(1, 4 * d_inner, length, 4, 1, item),
        )  # fmt: skip
        image = draw(1, d_inner, side, side)
        yield Workload(
            "cross_scan", where, _calling(cross_scan, image),
            counts.cross_counts(1, d_inner, side, side, item, merge=False),
        )  # fmt: skip
        yield Workload(
            "cross_merge", where, _calling(cross_merge, draw(1, 4, d_inner, length), side, side),
            counts.cross_counts(1, d_inner, side, side, item, merge=True),
        )  # fmt: skip
        block = draw(1, side, side, d_model)
        ones, zeros, weight = draw(d_model), draw(d_model), draw(d_inner, d_model)
        yield Workload(
            "norm_linear", where, _calling(norm_linear, block, ones, zeros, weight),
            counts.linear_counts(length, d_model, d_inner, item, norm=True),
        )  # fmt: skip
        yield Workload(
            "linear", where, _calling(linear, x, draw(d_model, d_inner)),
            counts.linear_counts(length, d_inner, d_model, item, norm=False),
        )  # fmt: skip
        yield Workload(
            "depthwise_conv_silu", where, _calling(depthwise_conv_silu, x, draw(d_inner, 1, 3, 3)),
            counts.depthwise_counts(1, side, side, d_inner, 3, item),
        )  # fmt: skip


def measure(
    workload: Workload,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    ceilings: Ceilings,
    seconds: float,
) -> BenchRow:
    """Time one workload on one backend."""
    with torch.inference_mode():
        durations = samples_of(lambda: workload.call(backend), device, seconds)
    median = statistics.median(durations)
    low, _, high = statistics.quantiles(durations, n=4)
    bytes_per_s, flops_per_s = workload.work.bytes / median, workload.work.flops / median
    return BenchRow(
        op=workload.op,
        shape=workload.shape,
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        launch=workload.launch(backend),
        median_s=median,
        quartile_low_s=low,
        quartile_high_s=high,
        samples=len(durations),
        counted_bytes=workload.work.bytes,
        counted_flops=workload.work.flops,
        bytes_per_s=bytes_per_s,
        flops_per_s=flops_per_s,
        copy_ceiling_bytes_per_s=ceilings.copy_bytes_per_s,
        matmul_ceiling_flops_per_s=ceilings.matmul_flops_per_s,
        share_of_copy_ceiling=bytes_per_s / ceilings.copy_bytes_per_s,
        share_of_matmul_ceiling=flops_per_s / ceilings.matmul_flops_per_s,
    )


def _ss2d_launch(x: Tensor, dt_rank: int, backend: str) -> str:
    if backend != "triton":
        return ""
    from vlmprof.kernels.ss2d.fused import launch_for

    launch = launch_for(x.shape, dt_rank, 1, x.dtype, x.device)
    return f"{launch.tiles} tiles by {launch.chosen_by}"


def _calling(
    function: Callable[..., Tensor],
    *arguments: object,
    peers: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Callable[[str], Tensor]:
    def call(backend: str) -> Tensor:
        if peers and backend in peers:
            return peers[backend](*arguments)
        return function(*arguments, backend=backend)

    return call


def _drawing(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, device=device).to(dtype)
