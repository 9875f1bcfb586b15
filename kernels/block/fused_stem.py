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

from vlmprof.kernels.block.arguments import ConvolutionNormArguments
from vlmprof.kernels.block.fused_norm import Row, parts_of, statistics
from vlmprof.kernels.block.packing import padded_taps, taps_first
from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.device_math import activated, load_where, multiply
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters

MANY_CHANNELS = 64
"""Most output channels with which the results of 128 pixels fit in the registers of four warps."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the kernel."""

    ROW: Row
    """The norm of an output pixel's channels."""
    C_IN: int
    """Input channels."""
    SIZE: int
    """Pixels of a filter along each axis."""
    STRIDE: int
    PADDING: int
    TAPS: int
    """SIZE · SIZE · C_IN, padded to a power of two of at least 16."""
    PIXELS: int
    """Pixels of one output row per program."""


@triton.jit
def load_patches(x_ptr, image, top, column, there, height, width, V: tl.constexpr):
    """The pixels under the filter whose upper edge is at row `top`, at each output column, (PIXELS, TAPS)."""
    C_IN: tl.constexpr = V.C_IN
    # a row of the image under a filter is contiguous: SIZE · C_IN values from the filter's left edge
    tap = tl.arange(0, V.TAPS)[None, :]  # (1, TAPS)
    down = tap // (V.SIZE * C_IN)
    at = (column * V.STRIDE - V.PADDING) * C_IN + tap % (V.SIZE * C_IN)  # (PIXELS, TAPS)
    inside = (tap < V.SIZE * V.SIZE * C_IN) & (top + down >= 0) & (top + down < height)
    inside = inside & (at >= 0) & (at < width * C_IN) & there
    first = x_ptr + (image * height + top) * width * C_IN
    return tl.load(first + (down * width * C_IN + at), mask=inside, other=0.0)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns"])
def stem_kernel(
    x_ptr, filter_ptr, input_bias_ptr, weight_ptr, bias_ptr, y_ptr, height, width, rows, columns, eps,
    V: tl.constexpr,
):  # fmt: skip
    """x (batch, height, width, C_IN), filter (PARTS · WIDTH, TAPS) -> y (batch, rows, columns, C).

    Grid (batch · rows · blocks of PIXELS columns).
    """
    ROW: tl.constexpr = V.ROW
    C: tl.constexpr = ROW.C
    WIDTH: tl.constexpr = ROW.WIDTH
    PARTS: tl.constexpr = ROW.PARTS
    PIXELS: tl.constexpr = V.PIXELS
    MASKED: tl.constexpr = C % WIDTH != 0
    across = tl.cdiv(columns, PIXELS)
    line = tl.program_id(0) // across
    image = (line // rows).to(tl.int64)
    top = line % rows * V.STRIDE - V.PADDING
    column = tl.program_id(0) % across * PIXELS + tl.arange(0, PIXELS)[:, None]  # (PIXELS, 1)
    there = column < columns
    patches = load_patches(x_ptr, image, top, column, there, height, width, V)  # (PIXELS, TAPS)

    parts = ()
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)  # (WIDTH,)
        # (TAPS, WIDTH)
        taps = tl.load(filter_ptr + (channel[None, :] * V.TAPS + tl.arange(0, V.TAPS)[:, None]))
        nothing = tl.zeros([PIXELS, WIDTH], tl.float32)
        product = multiply(patches, taps, nothing, ROW.PRECISE)  # (PIXELS, WIDTH)
        if ROW.INPUT_BIAS:
            product += load_where(input_bias_ptr + channel, channel < C, MASKED).to(tl.float32)[None, :]
        parts += (product,)
    mean, scale = statistics(parts, eps, ROW)  # (PIXELS, 1)
    out = y_ptr + (line.to(tl.int64) * columns) * C
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)
        gamma = load_where(weight_ptr + channel, channel < C, MASKED).to(tl.float32)  # (WIDTH,)
        y = (parts[p] - mean) * scale * gamma[None, :]
        if ROW.BIAS:
            y += load_where(bias_ptr + channel, channel < C, MASKED).to(tl.float32)[None, :]
        y = activated(y, ROW)
        wanted = there & (channel < C)[None, :] if MASKED else there
        tl.store(out + (column * C + channel[None, :]), y.to(y_ptr.dtype.element_ty), mask=wanted)


def convolution_norm_fused(x: Tensor, convolution: ConvolutionNormArguments) -> Tensor:
    """Compute `convolution_norm`: x (batch, height, width, C_IN) on a GPU -> (batch, rows, columns, C).

    bfloat16, float16 or float32; raises TypeError for float64.
    """
    if x.dtype == torch.float64:
        raise TypeError("convolution_norm: backend 'triton' sums in float32; 'torch' takes float64")
    _, height, width, in_channels = x.shape
    filters, weight, bias, input_bias, stride, padding, activation, eps = convolution
    batch, rows, columns, channels = shape = convolution.size_of_result(x)
    taps = cached_from_parameters(taps_first, x.dtype, filters)
    y = x.new_empty(shape)
    pixels, launch = _launcher(
        x.dtype, in_channels, channels, filters.shape[3], stride, padding,
        input_bias is not None, bias is not None, activation or "",
    )  # fmt: skip
    launch(
        (batch * rows * -(-columns // pixels), 1, 1),
        x.contiguous(),
        taps,
        taps if input_bias is None else input_bias.contiguous(),
        weight.contiguous(),
        taps if bias is None else bias.contiguous(),
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
    row = Row(channels, width, -(-channels // width), *fused, PRECISE=dtype == torch.float32)
    taps, pixels = padded_taps(in_channels * size * size), 128 if channels <= MANY_CHANNELS else 64
    return Variant(row, in_channels, size, stride, padding, taps, pixels)
