"""The kernels of `linear` and `norm_linear`.

x is loaded for the norm or for the product, never by one load for both. In a loop, Triton gives a load that
also has a use in registers one buffer less than a product of four warps needs, which reads shared memory
while the program goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import INTERPRETED, activated, load_where, multiply


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the kernel: sizes of the product, and its fused operations."""

    K: int
    """Input features."""
    M: int
    """Output features."""
    NORM: bool = False
    FOLDED: bool = False
    """Whether the norm's weight is folded into the product's."""
    OFFSET: bool = True
    RESIDUAL: bool = False
    ACTIVATION: str = ""
    """`gelu`, `silu` or empty."""
    PRECISE: bool = False
    """Whether x is float32."""
    FIRST: int = 0
    """Input features of a kept row, in two powers of two; 0 if x is read in steps."""
    SECOND: int = 0


class Rows(NamedTuple):
    """The rows of a program, and its tiles."""

    row: tl.tensor  # (ROWS,)
    there: tl.tensor  # (ROWS, 1): whether the row exists
    x: tl.tensor  # (ROWS, 1): pointers to the rows
    first: tl.tensor  # the first of the program's tiles, beside each other
    every: tl.tensor  # tiles beside each other that cover all columns


class Norm(NamedTuple):
    """The statistics of a program's rows."""

    mean: tl.tensor  # (ROWS, 1), or 0 without a norm
    scale: tl.tensor  # (ROWS, 1): 1 / sqrt(variance + eps), or 1


class After(NamedTuple):
    """Pointers to what a product is finished with, and to the result."""

    sums: tl.tensor  # (M): sums of W γ over K
    offset: tl.tensor  # (M)
    residual: tl.tensor  # (rows, M)
    y: tl.tensor  # (rows, M)


@triton.jit
def finished(x):
    """x, float32, as a value that exists at this point: a product in it is waited for here.

    In a loop, Triton 3.6 lets products of four warps run on into the next iteration. If their left factor is
    in registers, that iteration overwrites it while they read it.
    """
    if INTERPRETED:
        y = x
    else:
        y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1)
    return y


@triton.jit
def load_weight(
    weight_ptr, column, k, V: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr, PARTIAL: tl.constexpr
):
    """The weight's transpose at features k and columns, (DEPTH, COLUMNS)."""
    at = weight_ptr + column[None, :] * V.K + k[:, None]
    if V.M % TILE.columns != 0 and PARTIAL:
        w = tl.load(at, mask=(column < V.M)[None, :] & (k < V.K)[:, None], other=0.0)
    elif V.M % TILE.columns != 0:
        w = tl.load(at, mask=tl.broadcast_to((column < V.M)[None, :], [DEPTH, TILE.columns]), other=0.0)
    elif PARTIAL:
        w = tl.load(at, mask=tl.broadcast_to((k < V.K)[:, None], [DEPTH, TILE.columns]), other=0.0)
    else:
        w = tl.load(at)
    return w


@triton.jit
def programs_rows(x_ptr, rows, blocks, V: tl.constexpr, TILE: tl.constexpr):
    """The rows of this program and its tiles: `blocks` beside each other."""
    every = tl.cdiv(V.M, TILE.columns)
    across = tl.cdiv(every, blocks)
    row = tl.program_id(0) // across * TILE.rows + tl.arange(0, TILE.rows)
    first = tl.program_id(0) % across * blocks
    there = (row < rows)[:, None]
    return Rows(row, there, x_ptr + row.to(tl.int64)[:, None] * V.K, first, every)


@triton.jit
def finish(
    product, norm, rows, column, after, V: tl.constexpr, TILE: tl.constexpr, CENTRED: tl.constexpr
):  # fmt: skip
    """Apply the norm, the offset, the activation and the residual to a tile of the product, and store it.

    CENTRED: `centre` has subtracted the mean from the rows.
    """
    inside = rows.there
    if V.M % TILE.columns != 0:
        inside = inside & (column < V.M)[None, :]
    if V.NORM:
        if not CENTRED:
            sums = tl.load(after.sums + column, mask=column < V.M, other=0.0)[None, :]  # (1, COLUMNS)
            product = product - norm.mean * sums
        if V.PRECISE or not CENTRED:
            product = product * norm.scale
    if V.OFFSET:
        product += tl.load(after.offset + column, mask=column < V.M, other=0.0).to(tl.float32)[None, :]
    product = activated(product, V)
    start = rows.row.to(tl.int64)[:, None] * V.M  # (ROWS, 1)
    if V.RESIDUAL:
        product += tl.load(after.residual + start + column[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(after.y + start + column[None, :], product.to(after.y.dtype.element_ty), mask=inside)


@triton.jit
def centre(x, norm, rows, k, norm_weight_ptr, ELEMENT: tl.constexpr, V: tl.constexpr, PARTIAL: tl.constexpr):
    """(x - mean) · scale, times γ unless it is folded into the weight; 0 where there is no x.

    PRECISE rows are scaled after the product. Others are scaled here, because float16 ends at 65504.
    """
    x = x.to(tl.float32)
    x = x - norm.mean if V.PRECISE else x * norm.scale - norm.mean * norm.scale
    if PARTIAL:
        x = tl.where(rows.there & (k < V.K)[None, :], x, 0.0)
    if not V.FOLDED:
        gamma = load_where(norm_weight_ptr + k, k < V.K, PARTIAL)  # (DEPTH,)
        x = x * gamma.to(tl.float32)[None, :]
    return x.to(ELEMENT)


@triton.jit(do_not_specialize=["rows", "blocks"])
def linear_kernel(
    x_ptr, weight_ptr, norm_weight_ptr, sum_ptr, offset_ptr, residual_ptr, y_ptr, rows, blocks, eps,
    V: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """y (rows, M) = activation(norm(x) weightᵀ + offset) + residual. x (rows, K) and weight (M, K) in steps.

    With NORM, sum (M) are the sums of W γ over K, and when FOLDED weight is W γ. A program computes `blocks`
    tiles beside each other. Grid (row blocks · programs per row block): programs which run together share
    rows, and the first dimension alone may exceed 65535, as the row blocks of a 8192-pixel image do.
    """
    ROWS: tl.constexpr = TILE.rows
    COLUMNS: tl.constexpr = TILE.columns
    DEPTH: tl.constexpr = TILE.depth
    PARTIAL: tl.constexpr = V.K % DEPTH != 0
    CENTRED: tl.constexpr = V.NORM and (V.PRECISE or not V.FOLDED)
    ELEMENT: tl.constexpr = x_ptr.dtype.element_ty
    rows = programs_rows(x_ptr, rows, blocks, V, TILE)
    after = After(sum_ptr, offset_ptr, residual_ptr, y_ptr)
    depth = tl.arange(0, DEPTH)  # (DEPTH,)
    norm = Norm(0.0, 1.0)
    if V.NORM:
        norm = sum_rows(rows, eps, V, TILE)

    for block in tl.range(rows.first, tl.minimum(rows.first + blocks, rows.every), num_stages=1):
        column = block * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
        product = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(0, V.K, DEPTH):
            x = load_features(rows, k + depth, V, PARTIAL)  # (ROWS, DEPTH)
            w = load_weight(weight_ptr, column, k + depth, V, TILE, DEPTH, PARTIAL)
            if CENTRED:
                x = centre(x, norm, rows, k + depth, norm_weight_ptr, ELEMENT, V, PARTIAL)
            if CENTRED and not V.PRECISE:
                product += finished(multiply(x, w, tl.zeros([ROWS, COLUMNS], tl.float32), V.PRECISE))
            else:
                product = multiply(x, w, product, V.PRECISE)
        finish(product, norm, rows, column, after, V, TILE, CENTRED)


@triton.jit
def sum_rows(rows, eps, V: tl.constexpr, TILE: tl.constexpr):
    """The norm of rows that are read in steps. Sums around a value of the row cancel little."""
    ROWS: tl.constexpr = TILE.rows
    DEPTH: tl.constexpr = TILE.depth
    PARTIAL: tl.constexpr = V.K % DEPTH != 0
    depth = tl.arange(0, DEPTH)  # (DEPTH,)
    pivot = tl.load(rows.x, mask=rows.there, other=0.0).to(tl.float32)  # (ROWS, 1)
    total = tl.zeros([ROWS, DEPTH], tl.float32)
    squares = tl.zeros([ROWS, DEPTH], tl.float32)
    for k in tl.range(0, V.K, DEPTH, num_stages=TILE.stages):
        x = load_features(rows, k + depth, V, PARTIAL).to(tl.float32) - pivot
        if PARTIAL:
            x = tl.where(rows.there & (k + depth < V.K)[None, :], x, 0.0)
        total += x
        squares += x * x
    shift = tl.sum(total, 1)[:, None] / V.K  # (ROWS, 1)
    variance = tl.sum(squares, 1)[:, None] / V.K - shift * shift
    scale = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    return Norm(pivot + shift, scale)


@triton.jit(do_not_specialize=["rows", "blocks"])
def linear_rows_kernel(
    x_ptr, weight_ptr, norm_weight_ptr, sum_ptr, offset_ptr, residual_ptr, y_ptr, rows, blocks, eps,
    V: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """`linear_kernel` with rows of x that are loaded once, as FIRST and SECOND features, and kept."""
    ROWS: tl.constexpr = TILE.rows
    COLUMNS: tl.constexpr = TILE.columns
    FIRST: tl.constexpr = V.FIRST
    SECOND: tl.constexpr = V.SECOND
    TAIL: tl.constexpr = V.K < FIRST
    TAIL2: tl.constexpr = V.K < FIRST + SECOND
    CENTRED: tl.constexpr = V.NORM and not V.FOLDED
    ELEMENT: tl.constexpr = x_ptr.dtype.element_ty
    rows = programs_rows(x_ptr, rows, blocks, V, TILE)
    after = After(sum_ptr, offset_ptr, residual_ptr, y_ptr)
    first = tl.arange(0, FIRST)
    x = load_features(rows, first, V, TAIL)  # (ROWS, FIRST)
    if SECOND > 0:
        second = FIRST + tl.arange(0, SECOND)
        x2 = load_features(rows, second, V, TAIL2)  # (ROWS, SECOND)
    norm = Norm(0.0, 1.0)
    if V.NORM:
        total = tl.sum(x.to(tl.float32), 1)[:, None]  # (ROWS, 1)
        if SECOND > 0:
            total += tl.sum(x2.to(tl.float32), 1)[:, None]
        mean = total / V.K
        squares = sum_squares(x, mean, first, V, TAIL)
        if SECOND > 0:
            squares += sum_squares(x2, mean, second, V, TAIL2)
        norm = Norm(mean, tl.rsqrt(squares / V.K + eps))
        if CENTRED:
            x = centre(x, norm, rows, first, norm_weight_ptr, ELEMENT, V, TAIL)
            if SECOND > 0:
                x2 = centre(x2, norm, rows, second, norm_weight_ptr, ELEMENT, V, TAIL2)

    for block in range(rows.first, tl.minimum(rows.first + blocks, rows.every)):
        column = block * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
        product = tl.zeros([ROWS, COLUMNS], tl.float32)
        w = load_weight(weight_ptr, column, first, V, TILE, FIRST, TAIL)  # (FIRST, COLUMNS)
        product = multiply(x, w, product, V.PRECISE)
        if SECOND > 0:
            w = load_weight(weight_ptr, column, second, V, TILE, SECOND, TAIL2)
            product = multiply(x2, w, product, V.PRECISE)
        finish(product, norm, rows, column, after, V, TILE, CENTRED)


@triton.jit
def load_features(rows, k, V: tl.constexpr, PARTIAL: tl.constexpr):
    """Features k of all rows, (ROWS, DEPTH), and 0 past the last row or feature."""
    inside = rows.there
    if PARTIAL:
        inside = inside & (k < V.K)[None, :]
    return tl.load(rows.x + k[None, :], mask=inside, other=0.0)


@triton.jit
def sum_squares(x, mean, k, V: tl.constexpr, PARTIAL: tl.constexpr):
    """Sums of (x - mean)² over the features k, (ROWS, 1)."""
    x = x.to(tl.float32) - mean
    if PARTIAL:
        x = tl.where((k < V.K)[None, :], x, 0.0)
    return tl.sum(x * x, 1)[:, None]
