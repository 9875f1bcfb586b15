"""Benchmarks of the operations at VMamba's shapes, with two measured ceilings of the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlmprof.kernels.common import counts
from vlmprof.kernels.ss2d.parameters import Parameters
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


@dataclass(frozen=True)
class Workload:
    """One operation at one shape, whose inputs are drawn for each measurement."""

    shape: str
    case: Case
    work: counts.Counts
    baselines: Mapping[str, Callable[..., Tensor]]
    """Other implementations of it, selected by name like a backend."""

    @property
    def op(self) -> str:
        """Name of the operation."""
        return self.case.op


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
                case = case.cast(dtype)
            yield Workload(where, case, work, baselines if case.op == "ss2d" and baselines else {})


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
        ss2d_case(name, *to, (1, side, side, d_inner), dt_rank, 1),
        counts.ss2d_counts(1, side, side, d_inner, dt_rank, 1, item),
    )
    yield (
        selective_scan_case(name, *to, (1, 4 * d_inner, pixels), 4, 1),
        counts.selective_scan_counts(1, 4 * d_inner, pixels, 4, 1, item),
    )
    yield cross_scan_case(name, *to, image), counts.cross_counts(*image, item, merge=False)
    yield cross_merge_case(name, *to, image), counts.cross_counts(*image, item, merge=True)
    yield (
        product_case(name, *to, pixels, in_proj),
        counts.linear_counts(pixels, d_model, d_inner, item, norm=True),
    )
    yield (
        product_case(name, *to, pixels, out_proj),
        counts.linear_counts(pixels, d_inner, d_model, item, norm=False),
    )
    yield (
        mlp_case(name, *to, (1, side, side, d_model), hidden),
        counts.mlp_counts(pixels, d_model, hidden, item),
    )
    yield (
        depthwise_case(name, *to, (1, side, side, d_inner), biased=False),
        counts.depthwise_counts(1, side, side, d_inner, 3, item),
    )
    yield layer_norm_case(name, *to, pixels, d_model), counts.layer_norm_counts(pixels, d_model, item)
    yield (
        stem_case(name, *to, (1, 4 * side, 4 * side, 3), filters, 3, 2, 1),
        counts.convolution_norm_counts(4 * pixels, 16 * pixels, 3, filters, 3, item),
    )


def _ss2d_launch(x: Tensor, *parameters: Tensor) -> str:
    """Describe the launch parameters of `ss2d`."""
    from vlmprof.kernels.ss2d.fused import launch_for

    p = Parameters(*parameters)
    launch = launch_for(x.shape, p.dt_rank, p.d_state, x.dtype, x.device)
    return f"{launch.tiles} tiles by {launch.chosen_by}"


def measure(
    workload: Workload,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    ceilings: Ceilings | None,
    seconds: float,
) -> BenchRow:
    """Time one workload on one backend. Without ceilings, the row has no shares of them."""
    case = workload.case
    with torch.inference_mode():
        arguments, options = case.draw()
        call = workload.baselines.get(backend) or partial(case.function, **options, backend=backend)
        durations = samples_of(lambda: call(*arguments), device, seconds)
    median = statistics.median(durations)
    low, _, high = statistics.quantiles(durations, n=4)
    bytes_per_s, flops_per_s = workload.work.bytes / median, workload.work.flops / median
    copy = matmul = None
    if ceilings is not None:
        copy, matmul = ceilings.copy_ceiling_bytes_per_s, ceilings.matmul_ceiling_flops_per_s
    return BenchRow(
        op=case.op,
        shape=workload.shape,
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        launch=_ss2d_launch(*arguments) if (case.op, backend) == ("ss2d", "triton") else "",
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
