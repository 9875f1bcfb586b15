"""Depthwise convolution and SiLU on channels-last activations, in one kernel: the `triton` backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.block.arguments import DepthwiseArguments
from vlmprof.kernels.block.packing import tap_major
from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.device_math import silu
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters

MOST_CHANNELS = 64
"""Most channels per program: for 16-bit types, those of a pixel are one cache line of 128 bytes."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the kernel."""

    D: int
    """Channels."""
    SIZE: int
    """Pixels of a filter along each axis."""
    BIAS: bool
    CHANNELS: int
    """Channels per program, a power of two."""
    PIXELS: int = 32
    """Pixels of one row per program: with 64 channels, 16 elements for each thread of four warps."""


@triton.jit(do_not_specialize=["height", "width"])
def depthwise_conv_silu_kernel(x_ptr, weight_ptr, bias_ptr, y_ptr, height, width, V: tl.constexpr):
    """x, y (batch, height, width, D); weight (SIZE · SIZE, D). Sums in float32.

    Grid (batch · height · row blocks of PIXELS, channel blocks). The neighbours that programs share are
    read from the cache.
    """
    D: tl.constexpr = V.D
    SIZE: tl.constexpr = V.SIZE
    PIXELS: tl.constexpr = V.PIXELS
    CHANNELS: tl.constexpr = V.CHANNELS
    across = tl.cdiv(width, PIXELS)
    line = tl.program_id(0) // across
    row = line % height
    image = (line // height).to(tl.int64)
    column = tl.program_id(0) % across * PIXELS + tl.arange(0, PIXELS)  # (PIXELS,)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # (CHANNELS,)
    real = (channel < D)[None, :]
    total = tl.zeros([PIXELS, CHANNELS], tl.float32)
    if V.BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < D, other=0.0)  # (CHANNELS,)
        total += bias.to(tl.float32)[None, :]
    for dy in tl.static_range(SIZE):
        y = row + dy - SIZE // 2
        pixels = x_ptr + (image * height + y) * width * D
        lines = y + tl.zeros([PIXELS], tl.int32)
        within = (lines >= 0) & (lines < height)
        for dx in tl.static_range(SIZE):
            x = column + dx - SIZE // 2
            there = (within & (x >= 0) & (x < width))[:, None] & real
            value_ptrs = pixels + (x[:, None] * D + channel[None, :])
            value = tl.load(value_ptrs, mask=there, other=0.0)  # (PIXELS, CHANNELS)
            weight_ptrs = weight_ptr + (dy * SIZE + dx) * D + channel
            weight = tl.load(weight_ptrs, mask=channel < D, other=0.0)  # (CHANNELS,)
            total += value.to(tl.float32) * weight.to(tl.float32)[None, :]
    total = silu(total)
    y_rows = y_ptr + (image * height + row) * width * D
    out = y_rows + (column[:, None] * D + channel[None, :])
    tl.store(out, total.to(y_ptr.dtype.element_ty), mask=(column < width)[:, None] & real)


def depthwise_conv_silu_fused(x: Tensor, convolution: DepthwiseArguments) -> Tensor:
    """Compute `depthwise_conv_silu`: x (batch, height, width, D) on a GPU -> the same shape and dtype.

    bfloat16, float16 or float32; raises TypeError for float64.
    """
    if x.dtype == torch.float64:
        raise TypeError("depthwise_conv_silu: backend 'triton' sums in float32; 'torch' takes float64")
    batch, height, width, channels = x.shape
    weight, bias = convolution
    taps = cached_from_parameters(tap_major, weight.dtype, weight)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    variant, launch = _launcher(channels, weight.shape[-1], bias is not None)
    grid = (batch * height * -(-width // variant.PIXELS), -(-channels // variant.CHANNELS), 1)
    launch(grid, x.contiguous(), taps, taps if bias is None else bias.contiguous(), y, height, width)
    return y


@lru_cache(maxsize=1024)
def _launcher(channels: int, size: int, bias: bool) -> tuple[Variant, Launcher]:
    variant = variant_for(channels, size, bias)
    return variant, Launcher(depthwise_conv_silu_kernel, {"V": variant}, FOUR_WARPS)


def variant_for(channels: int, size: int, bias: bool) -> Variant:
    """Return the constants of a launch for filters of `size` × `size`."""
    return Variant(channels, size, bias, min(MOST_CHANNELS, 1 << (channels - 1).bit_length()))
