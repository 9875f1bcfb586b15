"""Layer norm, matrix product, activation and residual in one kernel: the `triton` backend.

    K ≤ 384, 16 bits   linear_rows_kernel   loads rows of x once, sums them for the norm, multiplies them
    other              linear_kernel        sums rows of x for the norm, then multiplies them in steps of K

The norm is factored out of the product (`packing.py`): the product reads x as stored, and the mean and
variance of its rows are applied at the end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vlmprof.kernels.block.arguments import LinearArguments
from vlmprof.kernels.block.linear_kernels import Variant, linear_kernel, linear_rows_kernel
from vlmprof.kernels.block.linear_tiles import Product, Tile, column_blocks_per_program, pieces, tile_for
from vlmprof.kernels.block.packing import cast, fold, is_folded, unfolded
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters

MOST_NUMBERED = 2**31 - 256
"""Most rows, and most elements of a weight: their numbers, to the end of the last tile, have 32 bits."""


def linear_fused(x: Tensor, linear: LinearArguments, tile: Tile | None = None) -> Tensor:
    """Compute `norm_linear`, or `linear` without norm_weight: x (..., K) on a GPU -> (..., M).

    bfloat16, float16 or float32; raises TypeError for float64. `tile` replaces the tuned or default one.
    """
    if x.dtype == torch.float64:
        raise TypeError("linear: backend 'triton' sums in float32; backend 'torch' takes float64")
    norm_weight, norm_bias, weight, offset, residual, activation, eps = linear
    features, depth = weight.shape
    y = x.new_empty(*x.shape[:-1], features)
    x = x.contiguous()
    rows = x.numel() // depth
    sums, folded = x, is_folded(weight, rows)
    if norm_weight is not None:
        norm = cached_from_parameters(
            fold if folded else unfolded, x.dtype, norm_weight, norm_bias, weight, offset
        )
        weight = weight if norm.weight is None else norm.weight
        sums, offset = norm.sums, norm.offset
    normed = norm_weight is not None
    launch, grid, blocks = plan(
        rows, depth, features, normed, normed and folded, offset is not None, residual is not None,
        activation or "", x.dtype, x.device, tile,
    )  # fmt: skip
    launch(
        grid,
        x,
        cast(weight, x.dtype),
        x if norm_weight is None else norm_weight.contiguous(),
        sums,
        x if offset is None else offset.contiguous(),
        x if residual is None else residual.contiguous(),
        y,
        rows,
        blocks,
        eps,
    )
    return y


@lru_cache(maxsize=4096)
def plan(
    rows: int, depth: int, features: int, normed: bool, folded: bool, offset: bool, residual: bool,
    activation: str, dtype: torch.dtype, device: torch.device, tile: Tile | None,
) -> tuple[Launcher, tuple[int, int, int], int]:  # fmt: skip
    """Return the launcher, the grid and the tiles per program of a product.

    Cached by plain values: a `Product` and a `Variant` are too slow to create and hash at every launch.
    """
    if max(rows, features * depth) > MOST_NUMBERED:
        raise ValueError(
            f"linear: backend 'triton' takes up to 2³¹ rows and weights, got {rows} rows and "
            f"{features} × {depth} weights; backend 'torch' takes more"
        )
    product = Product(rows, depth, features, normed, residual, dtype)
    tile = tile or tile_for(product, device)
    blocks = column_blocks_per_program(product, tile)
    precise = dtype == torch.float32
    variant = Variant(depth, features, normed, folded, offset, residual, activation, precise)
    grid = (tile.row_blocks(rows) * -(-tile.column_blocks(features) // blocks), 1, 1)
    return _launcher(tile, variant), grid, blocks


@lru_cache(maxsize=1024)
def _launcher(tile: Tile, variant: Variant) -> Launcher:
    kernel, constants = kernel_for(tile, variant)
    return Launcher(kernel, constants, tile.options())


def kernel_for(tile: Tile, variant: Variant) -> tuple[Any, dict[str, Any]]:
    """Return the kernel for a tile, and its constants."""
    if tile.depth:
        return linear_kernel, {"V": variant, "TILE": tile}
    first, second = pieces(variant.K)
    return linear_rows_kernel, {"V": replace(variant, FIRST=first, SECOND=second), "TILE": tile}
