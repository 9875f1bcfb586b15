"""Layer norm, matrix product, activation and residual in one kernel: the `triton` backend.

The norm is factored out of the product (`packing.py`): the product reads x as stored, accumulates the sums
and squares of its rows on the way, and applies them at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.block.packing import fold, is_folded, unfolded
from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.device_math import INTERPRETED, load_where
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters


@dataclass(frozen=True)
class Tile:
    """The part of the product that one program computes: rows of x, rows of the weight, depth per step."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    """Number of steps whose loads are in flight at once."""

    def programs(self, rows: int, features: int) -> int:
        """Return the number of programs that cover all rows and output features."""
        return -(-rows // self.rows) * -(-features // self.columns)

    def options(self) -> dict[str, int | bool]:
        """Return the compile options of the kernel."""
        return {**FOUR_WARPS, "num_warps": self.warps, "num_stages": self.stages}


WIDE = Tile(64, 64, 32, 4, 3)
"""For four-byte inputs."""
SMALL = Tile(64, 64, 64, 4, 4)
"""For few programs, which wait for loads: deeper steps, and more of them in flight, reduce the waiting."""
LARGE = Tile(128, 128, 64, 8, 3)
"""Reads half as much per result and computes the norm's sums half as often. The tiles of all stages fit into
the shared memory of every GPU since Ampere."""

LARGE_FILLS = 264
"""Fewest programs with which large tiles keep a GPU busy: two per multiprocessor of an H200."""


def tile_for(rows: int, features: int, dtype: torch.dtype) -> Tile:
    """Return the tile for x of shape (rows, ...) and a weight of shape (features, ...)."""
    if dtype.itemsize > 2:
        return WIDE
    return LARGE if LARGE.programs(rows, features) >= LARGE_FILLS else SMALL


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


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """GELU by the error function, SiLU, or nothing, in float32."""
    if ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "silu":
        x = x / (1.0 + tl.exp(-x))
    return x


@triton.jit(do_not_specialize=["rows"])
def linear_kernel(
    x_ptr, weight_ptr, norm_weight_ptr, sum_ptr, offset_ptr, residual_ptr, y_ptr, rows, eps,
    V: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """y (rows, M) = activation(norm(x) weightᵀ + offset) + residual. x (rows, K), weight (M, K).

    With NORM sum (M) are the sums of W γ over K, and when FOLDED weight is W γ. Grid (row blocks ·
    column blocks): programs which run together share rows, and the first dimension alone may exceed
    65535, as the row blocks of a 8192-pixel image do.
    """
    ROWS: tl.constexpr = TILE.rows
    COLUMNS: tl.constexpr = TILE.columns
    DEPTH: tl.constexpr = TILE.depth
    K: tl.constexpr = V.K
    M: tl.constexpr = V.M
    ACTIVATION: tl.constexpr = V.ACTIVATION  # Triton 3.6 takes no plain string as an argument
    across = tl.cdiv(M, COLUMNS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)  # (ROWS,)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)  # (COLUMNS,)
    depth = tl.arange(0, DEPTH)  # (DEPTH,)
    PARTIAL: tl.constexpr = K % DEPTH != 0
    there = (row < rows)[:, None]
    x_rows = x_ptr + row.to(tl.int64)[:, None] * K  # (ROWS, 1)
    if V.NORM:
        total = tl.zeros([ROWS, DEPTH], tl.float32)
        squares = tl.zeros([ROWS, DEPTH], tl.float32)
        # rows around a value of their own cancel nothing; raw ones of 8 and 11 bits have nothing to lose
        CENTRED: tl.constexpr = V.PRECISE or not V.FOLDED
        if CENTRED:
            pivot = tl.load(x_rows, mask=there, other=0.0).to(tl.float32)  # (ROWS, 1)

    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(0, K, DEPTH):
        inside = there
        wanted = (column < M)[None, :]
        if PARTIAL:
            inside = there & (k + depth < K)[None, :]
            wanted = wanted & (k + depth < K)[:, None]
        x = tl.load(x_rows + (k + depth)[None, :], mask=inside, other=0.0)  # (ROWS, DEPTH)
        w_ptrs = weight_ptr + column[None, :] * K + (k + depth)[:, None]
        w = tl.load(w_ptrs, mask=wanted, other=0.0)  # (DEPTH, COLUMNS)
        if V.NORM:
            wide = x.to(tl.float32)
            if CENTRED:
                wide = tl.where(inside, wide - pivot, 0.0)
            total += wide
            squares += wide * wide
            if not V.FOLDED:
                gamma = load_where(norm_weight_ptr + k + depth, k + depth < K, PARTIAL)  # (DEPTH,)
                wide = wide * gamma.to(tl.float32)[None, :]
            if CENTRED:
                x = wide.to(w.dtype)
        if INTERPRETED:
            x = x.to(tl.float32)
            w = w.to(tl.float32)
        # (ROWS, DEPTH) · (DEPTH, COLUMNS)
        product = tl.dot(x, w, product, input_precision="tf32x3" if V.PRECISE else "tf32")

    if V.NORM:
        mean = tl.sum(total, 1)[:, None] / K  # (ROWS, 1)
        variance = tl.sum(squares, 1)[:, None] / K - mean * mean
        scale = tl.rsqrt(tl.maximum(variance, 0.0) + eps)
        sums = tl.load(sum_ptr + column, mask=column < M, other=0.0)[None, :]  # (1, COLUMNS)
        product = (product - mean * sums) * scale
    if V.OFFSET:
        product += tl.load(offset_ptr + column, mask=column < M, other=0.0)[None, :]  # (1, COLUMNS)
    product = activate(product, ACTIVATION)
    offsets = row.to(tl.int64)[:, None] * M + column[None, :]  # (ROWS, COLUMNS)
    inside = there & (column < M)[None, :]
    if V.RESIDUAL:
        product += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)  # (ROWS, COLUMNS)
    tl.store(y_ptr + offsets, product.to(y_ptr.dtype.element_ty), mask=inside)


def linear_fused(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    eps: float,
) -> Tensor:
    """Compute `norm_linear`, or `linear` without norm_weight: x (..., K) on a GPU -> (..., M).

    bfloat16, float16 or float32; raises TypeError for float64.
    """
    if x.dtype == torch.float64:
        raise TypeError("linear: backend 'triton' sums in float32; backend 'torch' takes float64")
    features, depth = weight.shape
    y = x.new_empty(*x.shape[:-1], features)
    x = x.contiguous()
    rows = x.numel() // depth
    sums, offset = x, bias
    folded = is_folded(weight, rows)
    if norm_weight is not None:
        norm = cached_from_parameters(
            fold if folded else unfolded, x.dtype, norm_weight, norm_bias, weight, bias
        )
        weight = weight if norm.weight is None else norm.weight
        sums, offset = norm.sums, norm.offset
    weight = weight.to(x.dtype)
    tile = tile_for(rows, features, x.dtype)
    normed = norm_weight is not None
    launch = _launcher(
        tile, depth, features, normed, normed and folded, offset is not None, residual is not None,
        activation or "", x.dtype == torch.float32,
    )  # fmt: skip
    launch(
        (tile.programs(rows, features), 1, 1),
        x,
        weight.contiguous(),
        x if norm_weight is None else norm_weight,
        sums,
        x if offset is None else offset,
        x if residual is None else residual.contiguous(),
        y,
        rows,
        eps,
    )
    return y


@lru_cache(maxsize=1024)
def _launcher(tile: Tile, *variant: Any) -> Launcher:
    """Cache launchers by the fields of a `Variant`, which is too slow to create and hash at every launch."""
    return Launcher(linear_kernel, {"V": Variant(*variant), "TILE": tile}, tile.options())
