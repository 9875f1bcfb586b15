"""A convolution of an image's few channels, its bias, layer norm and activation in one kernel.

The pixels under a filter, 27 values for 3 × 3 and three channels, are gathered as the rows of a matrix
product, whose results are normed in registers: the convolution is never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.block.fused_norm import activated, parts_of, statistics
from vlmprof.kernels.block.packing import padded_taps, taps_first
from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.device_math import INTERPRETED, load_where
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters

MANY_CHANNELS = 64
"""Most output channels with which the results of 128 pixels fit in the registers of four warps."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the kernel."""

    C_IN: int
    C: int
    """Output channels: at most PARTS · WIDTH."""
    SIZE: int
    STRIDE: int
    PADDING: int
    TAPS: int
    """SIZE · SIZE · C_IN, padded to a power of two of at least 16."""
    WIDTH: int
    PARTS: int
    PIXELS: int
    """Pixels of one output row per program."""
    INPUT_BIAS: bool = True
    BIAS: bool = True
    ACTIVATION: str = ""
    PRECISE: bool = False


@triton.jit(do_not_specialize=["height", "width", "rows", "columns"])
def stem_kernel(
    x_ptr, filter_ptr, input_bias_ptr, weight_ptr, bias_ptr, y_ptr, height, width, rows, columns, eps,
    V: tl.constexpr,
):  # fmt: skip
    """x (batch, height, width, C_IN), filter (PARTS · WIDTH, TAPS) -> y (batch, rows, columns, C).

    Grid (batch · rows · blocks of PIXELS columns).
    """
    C: tl.constexpr = V.C
    C_IN: tl.constexpr = V.C_IN
    WIDTH: tl.constexpr = V.WIDTH
    PARTS: tl.constexpr = V.PARTS
    MASKED: tl.constexpr = C % WIDTH != 0
    across = tl.cdiv(columns, V.PIXELS)
    line = tl.program_id(0) // across
    image = (line // rows).to(tl.int64)
    top = line % rows * V.STRIDE - V.PADDING
    column = tl.program_id(0) % across * V.PIXELS + tl.arange(0, V.PIXELS)[:, None]  # (PIXELS, 1)
    there = column < columns

    # a row of the image under a filter is contiguous: SIZE · C_IN values from the filter's left edge
    tap = tl.arange(0, V.TAPS)[None, :]  # (1, TAPS)
    down = tap // (V.SIZE * C_IN)
    at = (column * V.STRIDE - V.PADDING) * C_IN + tap % (V.SIZE * C_IN)  # (PIXELS, TAPS)
    inside = (tap < V.SIZE * V.SIZE * C_IN) & (top + down >= 0) & (top + down < height)
    inside = inside & (at >= 0) & (at < width * C_IN) & there
    first = x_ptr + (image * height + top) * width * C_IN
    patch = tl.load(first + (down * width * C_IN + at), mask=inside, other=0.0)
    if INTERPRETED:
        patch = patch.to(tl.float32)

    parts = ()
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)  # (WIDTH,)
        taps = tl.load(filter_ptr + (channel[None, :] * V.TAPS + tl.arange(0, V.TAPS)[:, None]))
        if INTERPRETED:
            taps = taps.to(tl.float32)
        # (PIXELS, TAPS) · (TAPS, WIDTH)
        product = tl.dot(patch, taps, input_precision="tf32x3" if V.PRECISE else "tf32")
        if V.INPUT_BIAS:
            product += load_where(input_bias_ptr + channel, channel < C, MASKED).to(tl.float32)[None, :]
        parts += (product,)
    mean, scale = statistics(parts, eps, C, WIDTH, PARTS)
    out = y_ptr + (line.to(tl.int64) * columns) * C
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)
        gamma = load_where(weight_ptr + channel, channel < C, MASKED).to(tl.float32)
        y = (parts[p] - mean) * scale * gamma[None, :]
        if V.BIAS:
            y += load_where(bias_ptr + channel, channel < C, MASKED).to(tl.float32)[None, :]
        y = activated(y, V)
        wanted = there & (channel < C)[None, :] if MASKED else there
        tl.store(out + (column * C + channel[None, :]), y.to(y_ptr.dtype.element_ty), mask=wanted)


def convolution_norm_fused(
    x: Tensor,
    filters: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_bias: Tensor | None,
    stride: int,
    padding: int,
    activation: str | None,
    eps: float,
) -> Tensor:
    """Compute `convolution_norm`: x (batch, height, width, C_IN) on a GPU -> (batch, rows, columns, C)."""
    if x.dtype == torch.float64:
        raise TypeError("convolution_norm: backend 'triton' sums in float32; 'torch' takes float64")
    batch, height, width, _ = x.shape
    channels, in_channels, size, _ = filters.shape
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    taps = cached_from_parameters(taps_first, x.dtype, filters)
    y = x.new_empty((batch, rows, columns, channels))
    pixels, launch = _launcher(
        x.dtype, in_channels, channels, size, stride, padding, input_bias is not None, bias is not None,
        activation or "",
    )  # fmt: skip
    launch(
        (batch * rows * -(-columns // pixels), 1, 1),
        x.contiguous(),
        taps,
        taps if input_bias is None else input_bias,
        weight,
        taps if bias is None else bias,
        y,
        height,
        width,
        rows,
        columns,
        eps,
    )
    return y


@lru_cache(maxsize=1024)
def _launcher(dtype: torch.dtype, *sizes_and_fused: Any) -> tuple[int, Launcher]:
    """Return the pixels per program and the launcher."""
    variant = variant_for(dtype, *sizes_and_fused)
    return variant.PIXELS, Launcher(stem_kernel, {"V": variant}, FOUR_WARPS)


def variant_for(
    dtype: torch.dtype, in_channels: int, channels: int, size: int, stride: int, padding: int, *fused: Any
) -> Variant:
    """Return the constants of a launch; `fused` are `INPUT_BIAS`, `BIAS` and `ACTIVATION`."""
    width = max(16, parts_of(channels, 2)[0])  # a product has at least 16 columns
    parts, pixels = -(-channels // width), 128 if channels <= MANY_CHANNELS else 64
    taps = padded_taps(in_channels * size * size)
    return Variant(
        in_channels, channels, size, stride, padding, taps, width, parts, pixels,
        *fused, PRECISE=dtype == torch.float32,
    )  # fmt: skip
