"""Layer norm, matrix product, activation and residual in one kernel: the `triton` backend.

The norm's statistics take a first walk over the rows, whose second reading, for the product, comes
from the cache; the normalised rows are never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from vlmprof.kernels.backends import FOUR_WARPS
from vlmprof.kernels.device_math import INTERPRETED
from vlmprof.kernels.launcher import Launcher


@dataclass(frozen=True)
class Tile:
    """What a program makes of the product: rows of x, rows of the weight, how far it goes per step."""

    rows: int
    columns: int
    depth: int
    warps: int

    def programs(self, rows: int, features: int) -> int:
        """How many it takes for all rows and output features."""
        return -(-rows // self.rows) * -(-features // self.columns)

    def constants(self) -> dict[str, int]:
        """As constants of the kernel."""
        return {"ROWS": self.rows, "COLUMNS": self.columns, "DEPTH": self.depth}

    def options(self) -> dict[str, int | bool]:
        """How the kernel is compiled."""
        return {**FOUR_WARPS, "num_warps": self.warps}


SMALL = Tile(64, 64, 32, 4)
LARGE = Tile(128, 128, 64, 8)
"""Half the reads per result, and the norm computed half as often; for two-byte inputs alone, whose tiles in
three stages fit the shared memory of every GPU since Ampere."""

LARGE_FILLS = 264
"""Programs from which large tiles keep a GPU busy: two for each multiprocessor of an H200."""


def tile_for(rows: int, features: int, dtype: torch.dtype) -> Tile:
    """The tile for x of (rows, ...) and a weight of (features, ...)."""
    fills = LARGE.programs(rows, features) >= LARGE_FILLS
    return LARGE if dtype.itemsize == 2 and fills else SMALL


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
    x_ptr, norm_weight_ptr, norm_bias_ptr, weight_ptr, bias_ptr, residual_ptr, y_ptr, rows, eps,
    K: tl.constexpr, M: tl.constexpr,
    NORM: tl.constexpr, NORM_BIAS: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """y (rows, M) = activation(norm(x) weightᵀ + bias) + residual. x (rows, K), weight (M, K).

    Grid (row blocks · column blocks): programs which run together share rows, and the first dimension
    alone may exceed 65535, as the row blocks of a 8192-pixel image do.
    """
    across = tl.cdiv(M, COLUMNS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    there = (row < rows)[:, None]
    x_rows = x_ptr + row.to(tl.int64)[:, None] * K
    if NORM:
        # the mean first: subtracting it from a sum of squares would cancel
        total = tl.zeros([ROWS], tl.float32)
        for k in range(0, K, DEPTH):
            inside = there & (k + depth < K)[None, :]
            total += tl.sum(tl.load(x_rows + (k + depth)[None, :], mask=inside, other=0.0).to(tl.float32), 1)
        mean = total / K
        squares = tl.zeros([ROWS], tl.float32)
        for k in range(0, K, DEPTH):
            inside = there & (k + depth < K)[None, :]
            x = tl.load(x_rows + (k + depth)[None, :], mask=inside, other=0.0).to(tl.float32)
            centred = tl.where(inside, x - mean[:, None], 0.0)
            squares += tl.sum(centred * centred, 1)
        scale = tl.rsqrt(squares / K + eps)

    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(0, K, DEPTH):
        deep = k + depth < K
        x = tl.load(x_rows + (k + depth)[None, :], mask=there & deep[None, :], other=0.0)
        w = tl.load(
            weight_ptr + column[None, :] * K + (k + depth)[:, None],
            mask=(column < M)[None, :] & deep[:, None],
            other=0.0,
        )
        if NORM:
            normed = (x.to(tl.float32) - mean[:, None]) * scale[:, None]
            normed *= tl.load(norm_weight_ptr + k + depth, mask=deep, other=0.0).to(tl.float32)[None, :]
            if NORM_BIAS:
                normed += tl.load(norm_bias_ptr + k + depth, mask=deep, other=0.0).to(tl.float32)[None, :]
            x = normed.to(w.dtype)
        if INTERPRETED:
            x = x.to(tl.float32)
            w = w.to(tl.float32)
        product = tl.dot(x, w, product, input_precision=PRECISION)

    if BIAS:
        product += tl.load(bias_ptr + column, mask=column < M, other=0.0).to(tl.float32)[None, :]
    product = activate(product, ACTIVATION)
    offsets = row.to(tl.int64)[:, None] * M + column[None, :]
    inside = there & (column < M)[None, :]
    if RESIDUAL:
        product += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
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
    """Shapes as in `norm_linear`; without a norm weight there is no norm. Raises TypeError for float64."""
    if x.dtype == torch.float64:
        raise TypeError("linear: backend 'triton' sums in float32; backend 'torch' takes float64")
    features, depth = weight.shape
    y = x.new_empty((*x.shape[:-1], features))
    x = x.contiguous()
    if weight.dtype != x.dtype:
        weight = weight.to(x.dtype)
    rows = x.numel() // depth
    tile = tile_for(rows, features, x.dtype)
    launch = _launcher(
        depth, features, norm_weight is not None, norm_bias is not None, bias is not None,
        residual is not None, activation or "", x.dtype, tile,
    )  # fmt: skip
    launch(
        (tile.programs(rows, features), 1, 1),
        x,
        x if norm_weight is None else norm_weight,
        x if norm_bias is None else norm_bias,
        weight.contiguous(),
        x if bias is None else bias,
        x if residual is None else residual.contiguous(),
        y,
        rows,
        eps,
    )
    return y


@lru_cache(maxsize=1024)
def _launcher(
    depth: int, features: int, norm: bool, norm_bias: bool, bias: bool, residual: bool,
    activation: str, dtype: torch.dtype, tile: Tile,
) -> Launcher:  # fmt: skip
    constants = {
        "K": depth,
        "M": features,
        "NORM": norm,
        "NORM_BIAS": norm_bias,
        "BIAS": bias,
        "RESIDUAL": residual,
        "ACTIVATION": activation,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",
        **tile.constants(),
    }
    return Launcher(linear_kernel, constants, tile.options())
