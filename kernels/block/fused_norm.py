"""Input bias, layer norm and activation of channels-last rows in one kernel: the `triton` backend.

A program loads whole rows into registers and computes their mean, then their centred squares, so that memory
is read once and nothing cancels. Rows are cut into parts of a power of two of channels, 3 × 16 for 48: every
lane loads 16 bytes, few lanes share a row, and only channel counts without such parts need a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.block.arguments import LayerNormArguments
from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.device_math import activated, load_where
from vlmprof.kernels.common.launcher import Launcher

LANES = 32
LANE_BYTES = 16
"""The widest load of a lane."""

NARROWEST = 16
"""Fewest channels of a part that is cut further: a memory sector in 16 bits. The fewer lanes share a row, the
fewer shuffles its sums take."""

MOST_PARTS = 4
"""Most parts narrower than what a warp loads at once. A row with more is padded and masked instead."""

MOST_WIDE_PARTS = 8
"""Most parts of any row: the compiler takes minutes for 64. Several warps share a row with more."""


LANE_ELEMENTS = 32
"""Most values of a lane, which are registers. More rows per lane keep more loads in flight: 64, and two or
eight warps instead of four, are still to be timed."""


@dataclass(frozen=True)
class Row:
    """The compile-time constants of a norm: how a row is cut into parts, and what is fused."""

    C: int
    """Channels of a row: at most PARTS · WIDTH."""
    WIDTH: int
    """Channels of a part."""
    PARTS: int
    INPUT_BIAS: bool
    BIAS: bool
    ACTIVATION: str
    """`gelu`, `silu` or empty."""
    PRECISE: bool
    """Whether x is float32."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the kernel."""

    ROW: Row
    ROWS: int
    """Rows per program."""


@triton.jit
def channels_of(ptr, channel, line, real, MASKED: tl.constexpr):
    """A vector over channels, float32, for every row: in the layout of the rows, so without an exchange."""
    return load_where(ptr + channel + 0 * line, real, MASKED).to(tl.float32)  # (ROWS, WIDTH)


@triton.jit
def statistics(parts, eps, ROW: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of rows that are cut into parts (rows, WIDTH), each (rows, 1)."""
    C: tl.constexpr = ROW.C
    WIDTH: tl.constexpr = ROW.WIDTH
    PARTS: tl.constexpr = ROW.PARTS
    total = parts[0]
    for p in tl.static_range(1, PARTS):
        total += parts[p]
    mean = tl.sum(total, 1)[:, None] / C
    squares = tl.zeros_like(total)
    for p in tl.static_range(PARTS):
        centred = parts[p] - mean
        if C % WIDTH != 0:
            centred = tl.where(p * WIDTH + tl.arange(0, WIDTH)[None, :] < C, centred, 0.0)
        squares += centred * centred
    return mean, tl.rsqrt(tl.sum(squares, 1)[:, None] / C + eps)


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(x_ptr, input_bias_ptr, weight_ptr, bias_ptr, y_ptr, rows, eps, V: tl.constexpr):
    """y (rows, C) = activation((x + input_bias - mean) · rsqrt(variance + eps) · weight + bias).

    Grid (row blocks of ROWS).
    """
    ROW: tl.constexpr = V.ROW
    C: tl.constexpr = ROW.C
    ROWS: tl.constexpr = V.ROWS
    WIDTH: tl.constexpr = ROW.WIDTH
    PARTS: tl.constexpr = ROW.PARTS
    MASKED: tl.constexpr = C % WIDTH != 0
    first = tl.program_id(0).to(tl.int64) * ROWS
    line = tl.arange(0, ROWS)[:, None]  # (ROWS, 1)
    there = line < tl.minimum(rows - first, ROWS).to(tl.int32)
    x_rows = x_ptr + first * C
    y_rows = y_ptr + first * C

    parts = ()
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)[None, :]  # (1, WIDTH)
        real = (channel < C) & (line >= 0)
        inside = there & real if MASKED else there
        x = tl.load(x_rows + (line * C + channel), mask=inside, other=0.0).to(tl.float32)  # (ROWS, WIDTH)
        if ROW.INPUT_BIAS:
            x += channels_of(input_bias_ptr, channel, line, real, MASKED)
        parts += (x,)
    mean, scale = statistics(parts, eps, ROW)  # (ROWS, 1)
    for p in tl.static_range(PARTS):
        channel = p * WIDTH + tl.arange(0, WIDTH)[None, :]
        real = (channel < C) & (line >= 0)
        inside = there & real if MASKED else there
        y = (parts[p] - mean) * scale * channels_of(weight_ptr, channel, line, real, MASKED)
        if ROW.BIAS:
            y += channels_of(bias_ptr, channel, line, real, MASKED)
        y = activated(y, ROW)
        tl.store(y_rows + (line * C + channel), y.to(y_ptr.dtype.element_ty), mask=inside)


def parts_of(channels: int, item_bytes: int) -> tuple[int, int]:
    """Return the channels of a part, a power of two that a warp loads at once, and the number of parts."""
    widest = LANES * LANE_BYTES // item_bytes
    width = min(widest, channels & -channels)
    while width > NARROWEST and channels // width * 2 <= MOST_PARTS:
        width //= 2
    if width < widest and channels // width > MOST_PARTS:
        width = min(widest, 1 << (channels - 1).bit_length())
    while channels > MOST_WIDE_PARTS * width:
        width *= 2
    return width, -(-channels // width)


def variant_for(channels: int, item_bytes: int, *fused: Any) -> Variant:
    """Return the constants for rows of `channels`; `fused` are `INPUT_BIAS`, `BIAS` and `ACTIVATION`.

    The rows of a program, a power of two, fill every lane's load once, or as often as its registers allow.
    """
    width, parts = parts_of(channels, item_bytes)
    load = LANE_BYTES // item_bytes
    loads = max(1, LANE_ELEMENTS // (parts * load))
    rows = max(1, FOUR_WARPS["num_warps"] * LANES * load * (1 << loads.bit_length() - 1) // width)
    return Variant(Row(channels, width, parts, *fused, PRECISE=item_bytes == 4), rows)


def layer_norm_fused(x: Tensor, norm: LayerNormArguments) -> Tensor:
    """Compute `layer_norm`: x (..., channels) on a GPU -> the same shape and dtype.

    bfloat16, float16 or float32; raises TypeError for float64.
    """
    if x.dtype == torch.float64:
        raise TypeError("layer_norm: backend 'triton' sums in float32; backend 'torch' takes float64")
    x = x.contiguous()
    y = torch.empty_like(x)
    channels = x.shape[-1]
    rows = x.numel() // channels
    weight, bias, input_bias, activation, eps = norm
    per_program, launch = _launcher(
        channels, x.dtype.itemsize, input_bias is not None, bias is not None, activation or ""
    )
    launch(
        (-(-rows // per_program), 1, 1),
        x,
        x if input_bias is None else input_bias.contiguous(),
        weight.contiguous(),
        x if bias is None else bias.contiguous(),
        y,
        rows,
        eps,
    )
    return y


@lru_cache(maxsize=1024)
def _launcher(channels: int, item_bytes: int, *fused: Any) -> tuple[int, Launcher]:
    """Return the rows per program and the launcher."""
    variant = variant_for(channels, item_bytes, *fused)
    return variant.ROWS, Launcher(norm_kernel, {"V": variant}, FOUR_WARPS)
