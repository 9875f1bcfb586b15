"""Benchmarks of the operations at VMamba's shapes, with two measured ceilings of the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlmprof.kernels.common import counts
from vlmprof.kernels.tools.block_cases import (
    BLOCK_OPERATIONS,
    BlockProduct,
    depthwise_case,
    layer_norm_case,
    mlp_case,
    product_case,
    stem_case,
)
from vlmprof.kernels.tools.case import Case
from vlmprof.kernels.tools.cases import cross_merge_case, cross_scan_case, selective_scan_case, ss2d_case
from vlmprof.kernels.tools.timing import samples_of

WIDTHS = {"vmamba-t": 96, "vmamba-s": 96, "vmamba-b": 128}
"""d_model of the first level; it doubles with each level."""


@dataclass(frozen=True)
class Ceilings:
    """The measured ceilings of the device."""

    copy_ceiling_bytes_per_s: float
    """Rate of a large copy, counting bytes read and written."""
    matmul_ceiling_flops_per_s: float
    """Rate of a large square matrix product in the dtype under test."""


@dataclass(frozen=True)
class BenchRow:
    """One operation at one shape, dtype and backend."""

    op: str
    shape: str
    dtype: str
    backend: str
    launch: str
    """The launch parameters, if any, and how they were chosen: `8 tiles by rule`, `4 tiles by tuning`."""
    median_s: float
    quartile_low_s: float
    quartile_high_s: float
    samples: int
    counted_bytes: int
    counted_flops: int
    bytes_per_s: float
    flops_per_s: float
    copy_ceiling_bytes_per_s: float | None
    matmul_ceiling_flops_per_s: float | None
    share_of_copy_ceiling: float | None
    share_of_matmul_ceiling: float | None


Call = Callable[[str], Tensor]
"""Runs an operation once on the named backend."""


@dataclass(frozen=True)
class Workload:
    """One operation at one shape. `prepare()` creates its tensors and returns a `Call`."""

    op: str
    shape: str
    prepare: Callable[[], Call]
    work: counts.Counts
    launch: Callable[[str], str] = lambda backend: ""


def level_shape(model: str, resolution: int, level: int) -> tuple[int, int, int]:
    """Return side, d_inner and dt_rank of one of VMamba's levels (1 to 4) for square images."""
    d_model = WIDTHS[model] << (level - 1)
    return resolution // (2 << level), 2 * d_model, -(-d_model // 16)


def workloads(
    model: str,
    resolution: int,
    dtype: torch.dtype,
    device: torch.device,
    levels: tuple[int, ...],
    baselines: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Iterator[Workload]:
    """Yield the operations of one block at the given levels of VMamba (1 to 4), for square images.

    `baselines` are other implementations of `ss2d`, selected by name like a backend.
    """
    for level in levels:
        side, d_inner, dt_rank = level_shape(model, resolution, level)
        where = f"{model} {resolution} level {level}"
        for case, work in _block(where, side, d_inner, dt_rank, dtype, device):
            if case.op in BLOCK_OPERATIONS:  # as in a model of this dtype, with vectors in it too
                case = case.mapped(lambda value: value.to(dtype) if isinstance(value, Tensor) else value)
            if case.op != "ss2d":
                yield Workload(case.op, where, partial(_prepared, case), work)
                continue
            launch = partial(_ss2d_launch, (1, side, side, d_inner), dt_rank, dtype, device)
            yield Workload(case.op, where, partial(_prepared, case, baselines), work, launch)


def _ss2d_launch(
    shape: tuple[int, ...], dt_rank: int, dtype: torch.dtype, device: torch.device, backend: str
) -> str:
    if backend != "triton":
        return ""
    from vlmprof.kernels.ss2d.fused import launch_for

    launch = launch_for(torch.Size(shape), dt_rank, 1, dtype, device)
    return f"{launch.tiles} tiles by {launch.chosen_by}"


def _block(
    name: str, side: int, d_inner: int, dt_rank: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[Case, counts.Counts]]:
    """Yield the operations of a block of `side` × `side` pixels with their counts.

    `convolution_norm` is the stem at the first level, and at others a smaller image with more filters.
    """
    item, pixels, d_model = dtype.itemsize, side * side, d_inner // 2
    image, hidden, filters = (1, d_inner, side, side), 4 * d_model, d_model // 2
    in_proj = BlockProduct("in_proj", d_model, d_inner, normed=True, biased=False)
    out_proj = BlockProduct("out_proj", d_inner, d_model, biased=False)
    to = (dtype, device)
    yield (
        ss2d_case(name, (1, side, side, d_inner), dt_rank, 1, *to),
        counts.ss2d_counts(1, side, side, d_inner, dt_rank, 1, item),
    )
    yield (
        selective_scan_case(name, (1, 4 * d_inner, pixels), 4, 1, *to),
        counts.selective_scan_counts(1, 4 * d_inner, pixels, 4, 1, item),
    )
    yield cross_scan_case(name, image, *to), counts.cross_counts(*image, item, merge=False)
    yield cross_merge_case(name, image, *to), counts.cross_counts(*image, item, merge=True)
    yield (
        product_case(name, pixels, in_proj, *to),
        counts.linear_counts(pixels, d_model, d_inner, item, norm=True),
    )
    yield (
        product_case(name, pixels, out_proj, *to),
        counts.linear_counts(pixels, d_inner, d_model, item, norm=False),
    )
    yield (
        mlp_case(name, (1, side, side, d_model), hidden, *to),
        counts.mlp_counts(pixels, d_model, hidden, item),
    )
    yield (
        depthwise_case(name, (1, side, side, d_inner), *to, biased=False),
        counts.depthwise_counts(1, side, side, d_inner, 3, item),
    )
    yield layer_norm_case(name, pixels, d_model, *to), counts.layer_norm_counts(pixels, d_model, item)
    yield (
        stem_case(name, (1, 4 * side, 4 * side, 3), filters, 3, 2, 1, *to),
        counts.convolution_norm_counts(4 * pixels, 16 * pixels, 3, filters, 3, item),
    )


def _prepared(case: Case, baselines: Mapping[str, Callable[..., Tensor]] | None = None) -> Call:
    """Draw the inputs of a case; return a function that runs it on a backend, or as a baseline."""
    arguments, options = case.draw()

    def call(backend: str) -> Tensor:
        if baselines and backend in baselines:
            return baselines[backend](*arguments)
        return case.function(*arguments, **options, backend=backend)

    return call


def measure(
    workload: Workload,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    ceilings: Ceilings | None,
    seconds: float,
) -> BenchRow:
    """Time one workload on one backend. Without ceilings, the row has no shares of them."""
    with torch.inference_mode():
        call = workload.prepare()
        durations = samples_of(lambda: call(backend), device, seconds)
    median = statistics.median(durations)
    low, _, high = statistics.quantiles(durations, n=4)
    bytes_per_s, flops_per_s = workload.work.bytes / median, workload.work.flops / median
    copy = matmul = None
    if ceilings is not None:
        copy, matmul = ceilings.copy_ceiling_bytes_per_s, ceilings.matmul_ceiling_flops_per_s
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
        copy_ceiling_bytes_per_s=copy,
        matmul_ceiling_flops_per_s=matmul,
        share_of_copy_ceiling=None if copy is None else bytes_per_s / copy,
        share_of_matmul_ceiling=None if matmul is None else flops_per_s / matmul,
    )
