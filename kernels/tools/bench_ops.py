"""Benchmarks of the operations at VMamba's shapes, with two measured ceilings of the device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmprof.kernels.block import (
    convolution_norm,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
)
from vlmprof.kernels.common import counts
from vlmprof.kernels.common.backends import Backend
from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d
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
    item = dtype.itemsize
    for level in levels:
        side, d_inner, dt_rank = level_shape(model, resolution, level)
        d_model = d_inner // 2
        length = side * side
        prepare = _Prepared(side, d_inner, dt_rank, dtype, device, baselines)
        works = {
            "ss2d": counts.ss2d_counts(1, side, side, d_inner, dt_rank, 1, item),
            "selective_scan": counts.selective_scan_counts(1, 4 * d_inner, length, 4, 1, item),
            "cross_scan": counts.cross_counts(1, d_inner, side, side, item, merge=False),
            "cross_merge": counts.cross_counts(1, d_inner, side, side, item, merge=True),
            "norm_linear": counts.linear_counts(length, d_model, d_inner, item, norm=True),
            "linear": counts.linear_counts(length, d_inner, d_model, item, norm=False),
            "norm_mlp": counts.mlp_counts(length, d_model, 4 * d_model, item),
            "depthwise_conv_silu": counts.depthwise_counts(1, side, side, d_inner, 3, item),
            "layer_norm": counts.layer_norm_counts(length, d_model, item),
            "convolution_norm": counts.convolution_norm_counts(
                4 * length, 16 * length, 3, d_model // 2, 3, item
            ),
        }
        for op, work in works.items():
            launch = {"launch": prepare.ss2d_launch} if op == "ss2d" else {}
            where = f"{model} {resolution} level {level}"
            yield Workload(op, where, getattr(prepare, op), work, **launch)


@dataclass(frozen=True)
class _Prepared:
    """The operations of a block of `side` × `side` pixels, each with random arguments."""

    side: int
    d_inner: int
    dt_rank: int
    dtype: torch.dtype
    device: torch.device
    baselines: Mapping[str, Callable[..., Tensor]] | None

    def _draw(self) -> Callable[..., Tensor]:
        generator = torch.Generator(self.device).manual_seed(0)
        return lambda *shape: torch.randn(*shape, generator=generator, device=self.device).to(self.dtype)

    def _pixels(self, draw: Callable[..., Tensor], channels: int) -> Tensor:
        return draw(1, self.side, self.side, channels)

    def ss2d(self) -> Call:
        draw, d_inner, dt_rank = self._draw(), self.d_inner, self.dt_rank
        return _calling(
            ss2d,
            self._pixels(draw, d_inner),
            draw(4, dt_rank + 2, d_inner) * d_inner**-0.5,
            draw(4, d_inner, dt_rank) * dt_rank**-0.5,
            draw(4, d_inner).float() - 3.0,
            draw(4 * d_inner, 1).float() * 0.1,
            draw(4 * d_inner).float(),
            baselines=self.baselines,
        )

    def ss2d_launch(self, backend: str) -> str:
        if backend != "triton":
            return ""
        from vlmprof.kernels.ss2d.fused import launch_for

        shape = torch.Size((1, self.side, self.side, self.d_inner))
        launch = launch_for(shape, self.dt_rank, 1, self.dtype, self.device)
        return f"{launch.tiles} tiles by {launch.chosen_by}"

    def selective_scan(self) -> Call:
        draw, channels, length = self._draw(), 4 * self.d_inner, self.side * self.side
        return _calling(
            selective_scan,
            draw(1, channels, length),
            draw(1, channels, length),
            -draw(channels, 1).float().exp(),
            draw(1, 4, 1, length),
            draw(1, 4, 1, length),
            draw(channels).float(),
            draw(channels).float() - 3.0,
            True,
        )

    def cross_scan(self) -> Call:
        return _calling(cross_scan, self._draw()(1, self.d_inner, self.side, self.side))

    def cross_merge(self) -> Call:
        ys = self._draw()(1, 4, self.d_inner, self.side * self.side)
        return _calling(cross_merge, ys, self.side, self.side)

    def norm_linear(self) -> Call:
        draw, d_model = self._draw(), self.d_inner // 2
        x = self._pixels(draw, d_model)
        return _calling(norm_linear, x, draw(d_model), draw(d_model), draw(self.d_inner, d_model))

    def linear(self) -> Call:
        draw = self._draw()
        return _calling(linear, self._pixels(draw, self.d_inner), draw(self.d_inner // 2, self.d_inner))

    def norm_mlp(self) -> Call:
        draw, d_model = self._draw(), self.d_inner // 2
        x, hidden = self._pixels(draw, d_model), 4 * d_model
        return _calling(
            norm_mlp,
            x,
            draw(d_model),
            draw(d_model),
            draw(hidden, d_model) * d_model**-0.5,
            draw(hidden),
            draw(d_model, hidden) * hidden**-0.5,
            draw(d_model),
        )

    def depthwise_conv_silu(self) -> Call:
        draw = self._draw()
        return _calling(depthwise_conv_silu, self._pixels(draw, self.d_inner), draw(self.d_inner, 1, 3, 3))

    def layer_norm(self) -> Call:
        draw, d_model = self._draw(), self.d_inner // 2
        bias = draw(d_model)

        def with_bias(*arguments: Tensor, backend: Backend) -> Tensor:
            return layer_norm(*arguments, input_bias=bias, backend=backend)

        return _calling(with_bias, self._pixels(draw, d_model), draw(d_model), draw(d_model))

    def convolution_norm(self) -> Call:
        """The stem at the first level; at others, a smaller image with more filters."""
        draw, channels = self._draw(), self.d_inner // 4
        bias = draw(channels)

        def stem(*arguments: Tensor, backend: Backend) -> Tensor:
            return convolution_norm(
                *arguments, input_bias=bias, stride=2, padding=1, activation="gelu", backend=backend
            )

        image = draw(1, 4 * self.side, 4 * self.side, 3)
        return _calling(stem, image, draw(channels, 3, 3, 3), draw(channels), draw(channels))


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


def _calling(
    function: Callable[..., Tensor],
    *arguments: object,
    baselines: Mapping[str, Callable[..., Tensor]] | None = None,
) -> Call:
    def call(backend: str) -> Tensor:
        if baselines and backend in baselines:
            return baselines[backend](*arguments)
        return function(*arguments, backend=backend)

    return call
