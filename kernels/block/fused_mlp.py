"""Layer norm, both products of an MLP and its residual in one kernel: the `triton` backend.

A program normalizes its rows of x once and keeps them in shared memory. It loops over the hidden features, so
the hidden tensor, four times as large as x, never leaves the chip. The weights stream from the L2 cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.block.arguments import MlpArguments
from vlmprof.kernels.block.mlp_tiles import PIECES, MlpTile, tile_for
from vlmprof.kernels.block.packing import cast
from vlmprof.kernels.common.device_math import gelu, multiply, opaque
from vlmprof.kernels.common.launcher import Launcher


@dataclass(frozen=True)
class MlpVariant:
    """The compile-time constants of the kernel: the channels in two pieces, and the hidden features."""

    FIRST: int
    SECOND: int
    HIDDEN: int


@triton.jit(do_not_specialize=["rows"])
def mlp_kernel(
    x_ptr, norm_weight_ptr, norm_bias_ptr, weight1_ptr, bias1_ptr, weight2_ptr, bias2_ptr, y_ptr, rows, eps,
    V: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """y = x + gelu(norm(x) weight1ᵀ + bias1) weight2ᵀ + bias2. x (rows, C), weight1 (HIDDEN, C), weight2
    (C, HIDDEN). Grid (row blocks).

    Only products read the weights' rings. Triton 3.6 sizes the ring of a load that is also used in registers
    by that use, and overwrites it while an asynchronous product still reads it.
    """
    ROWS: tl.constexpr = TILE.rows
    STEP: tl.constexpr = TILE.hidden
    FIRST: tl.constexpr = V.FIRST
    SECOND: tl.constexpr = V.SECOND
    HIDDEN: tl.constexpr = V.HIDDEN
    C: tl.constexpr = FIRST + SECOND
    ELEMENT: tl.constexpr = x_ptr.dtype.element_ty
    first = tl.arange(0, FIRST)
    second = FIRST + tl.arange(0, SECOND)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    inside = (row < rows)[:, None]
    row_starts = row.to(tl.int64)[:, None] * C  # (ROWS, 1)

    a = tl.load(x_ptr + (row_starts + first[None, :]), mask=inside, other=0.0).to(tl.float32)  # (ROWS, FIRST)
    b = tl.load(x_ptr + (row_starts + second[None, :]), mask=inside, other=0.0).to(tl.float32)
    mean = ((tl.sum(a, 1) + tl.sum(b, 1)) / C)[:, None]  # (ROWS, 1)
    a -= mean
    b -= mean
    scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / C + eps)[:, None]
    a = _affine(a * scale, norm_weight_ptr, norm_bias_ptr, first).to(ELEMENT)
    b = _affine(b * scale, norm_weight_ptr, norm_bias_ptr, second).to(ELEMENT)

    product1 = tl.zeros([ROWS, FIRST], tl.float32)  # columns of the result, in two pieces
    product2 = tl.zeros([ROWS, SECOND], tl.float32)
    nothing = tl.zeros([ROWS, STEP], tl.float32)
    for start in range(0, HIDDEN, STEP):
        unit = start + tl.arange(0, STEP)  # (STEP,)
        columns = weight1_ptr + unit[None, :] * C  # (1, STEP)
        hidden = multiply(a, tl.load(columns + first[:, None]), nothing, False)
        hidden = multiply(b, tl.load(columns + second[:, None]), hidden, False)
        hidden += tl.load(bias1_ptr + unit).to(tl.float32)[None, :]  # (ROWS, STEP)
        hidden = gelu(hidden, False).to(ELEMENT)
        columns = weight2_ptr + unit[:, None]  # (STEP, 1)
        product1 = multiply(hidden, tl.load(columns + first[None, :] * HIDDEN), product1, False)
        product2 = multiply(hidden, tl.load(columns + second[None, :] * HIDDEN), product2, False)

    # computed again: pointers that live through the loop fill the registers
    row = opaque(tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    row_starts = row.to(tl.int64)[:, None] * C
    _store_sum(product1, bias2_ptr, x_ptr, y_ptr, row_starts, first, inside)
    _store_sum(product2, bias2_ptr, x_ptr, y_ptr, row_starts, second, inside)


@triton.jit
def _affine(x, weight_ptr, bias_ptr, column):
    weight = tl.load(weight_ptr + column).to(tl.float32)[None, :]  # (1, columns)
    return x * weight + tl.load(bias_ptr + column).to(tl.float32)[None, :]


@triton.jit
def _store_sum(product, bias_ptr, x_ptr, y_ptr, row_starts, column, inside):
    """y = product + bias + x at these columns. x is read again, most likely from the L2 cache."""
    at = row_starts + column[None, :]
    product += tl.load(bias_ptr + column).to(tl.float32)[None, :]  # (1, columns)
    product += tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)  # (ROWS, columns)
    tl.store(y_ptr + at, product.to(y_ptr.dtype.element_ty), mask=inside)


def norm_mlp_fused(x: Tensor, mlp: MlpArguments, tile: MlpTile | None = None) -> Tensor:
    """Compute `norm_mlp` for x (..., channels) on a GPU, bfloat16 or float16, with channels in `PIECES`.

    `tile` overrides the default. The hidden features must be a multiple of its own.
    """
    hidden, channels = mlp.fc1_weight.shape
    x = x.contiguous()
    y = torch.empty_like(x)
    rows = x.numel() // channels
    tile = tile or tile_for(rows, channels, x.device)
    launch = _launcher(channels, hidden, tile)
    launch(
        (tile.programs(rows), 1, 1),
        x,
        mlp.norm_weight.contiguous(),
        mlp.norm_bias.contiguous(),
        cast(mlp.fc1_weight, x.dtype),
        mlp.fc1_bias.contiguous(),
        cast(mlp.fc2_weight, x.dtype),
        mlp.fc2_bias.contiguous(),
        y,
        rows,
        mlp.eps,
    )
    return y


@lru_cache(maxsize=64)
def _launcher(channels: int, hidden: int, tile: MlpTile) -> Launcher:
    return Launcher(mlp_kernel, {"V": MlpVariant(*PIECES[channels], hidden), "TILE": tile}, tile.options())
