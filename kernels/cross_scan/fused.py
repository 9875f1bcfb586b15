"""Cross-scan and cross-merge as one kernel each: the `triton` backend.

A tile of 32 × 32 pixels is read once and written to four places, or read from four places, summed in
float32 and written once. For columns, the tile is transposed in registers, so that every access runs along
the contiguous dimension of memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.launcher import Launcher

TILE = 32
"""Rows and columns of a tile: for 16-bit types, each row or column is two sectors of 32 bytes."""


@triton.jit
def _tiles(height, width, TILE: tl.constexpr):
    return tl.cdiv(height, TILE) * tl.cdiv(width, TILE)


@triton.jit
def _places(height, width, TILE: tl.constexpr):
    """Offsets of a tile in scan order by rows, (rows, columns), and by columns, (columns, rows)."""
    tile = tl.program_id(0) % _tiles(height, width, TILE)
    across = tl.cdiv(width, TILE)
    rows = tile // across * TILE + tl.arange(0, TILE)
    columns = tile % across * TILE + tl.arange(0, TILE)
    by_rows = rows[:, None] * width + columns[None, :]
    by_columns = columns[:, None] * height + rows[None, :]
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    inside_transposed = (columns < width)[:, None] & (rows < height)[None, :]
    return by_rows, by_columns, inside, inside_transposed


@triton.jit(do_not_specialize=["channels", "height", "width"])
def cross_scan_kernel(x_ptr, xs_ptr, channels, height, width, TILE: tl.constexpr):
    """x (batch, channels, height, width) to xs (batch, 4, channels, L). Grid (batch · channels · tiles)."""
    by_rows, by_columns, inside, inside_t = _places(height, width, TILE)
    length = height * width
    image = (tl.program_id(0) // _tiles(height, width, TILE)).to(tl.int64)
    xs_ptr += (image // channels * (4 * channels) + image % channels) * length
    step = channels.to(tl.int64) * length
    tile = tl.load(x_ptr + image * length + by_rows, mask=inside)  # (rows, columns)
    turned = tl.trans(tile)  # (columns, rows)
    tl.store(xs_ptr + by_rows, tile, mask=inside)
    tl.store(xs_ptr + step + by_columns, turned, mask=inside_t)
    tl.store(xs_ptr + 2 * step + (length - 1 - by_rows), tile, mask=inside)
    tl.store(xs_ptr + 3 * step + (length - 1 - by_columns), turned, mask=inside_t)


@triton.jit(do_not_specialize=["channels", "height", "width"])
def cross_merge_kernel(ys_ptr, y_ptr, channels, height, width, TILE: tl.constexpr):
    """ys (batch, 4, channels, L) to y (batch, channels, height, width). Grid (batch · channels · tiles)."""
    by_rows, by_columns, inside, inside_t = _places(height, width, TILE)
    length = height * width
    image = (tl.program_id(0) // _tiles(height, width, TILE)).to(tl.int64)
    ys_ptr += (image // channels * (4 * channels) + image % channels) * length
    step = channels.to(tl.int64) * length
    rows = tl.load(ys_ptr + by_rows, mask=inside).to(tl.float32)  # (rows, columns)
    rows += tl.load(ys_ptr + 2 * step + (length - 1 - by_rows), mask=inside).to(tl.float32)
    columns = tl.load(ys_ptr + step + by_columns, mask=inside_t).to(tl.float32)  # (columns, rows)
    columns += tl.load(ys_ptr + 3 * step + (length - 1 - by_columns), mask=inside_t).to(tl.float32)
    merged = (rows + tl.trans(columns)).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + image * length + by_rows, merged, mask=inside)


_launch_scan = Launcher(cross_scan_kernel, {"TILE": TILE}, FOUR_WARPS)
_launch_merge = Launcher(cross_merge_kernel, {"TILE": TILE}, FOUR_WARPS)


def _grid(images: int, height: int, width: int) -> tuple[int, int, int]:
    """Return a one-dimensional grid, because only the first dimension may exceed 65535."""
    return (images * -(-height // TILE) * -(-width // TILE), 1, 1)


def cross_scan_fused(x: Tensor) -> Tensor:
    """Compute `cross_scan`: x (batch, d, height, width) on a GPU -> (batch, 4, d, height · width).

    bfloat16, float16 or float32; raises TypeError for float64.
    """
    _refuse_double("cross_scan", x)
    batch, channels, height, width = x.shape
    xs = x.new_empty(batch, 4, channels, height * width)
    grid = _grid(batch * channels, height, width)
    _launch_scan(grid, x.contiguous(), xs, channels, height, width)
    return xs


def cross_merge_fused(ys: Tensor, height: int, width: int) -> Tensor:
    """Compute `cross_merge`: ys (batch, 4, d, height · width) on a GPU -> (batch, d, height, width).

    bfloat16, float16 or float32, summed in float32; raises TypeError for float64.
    """
    _refuse_double("cross_merge", ys)
    batch, _, channels, _ = ys.shape
    y = ys.new_empty(batch, channels, height, width)
    grid = _grid(batch * channels, height, width)
    _launch_merge(grid, ys.contiguous(), y, channels, height, width)
    return y


def _refuse_double(op: str, tensor: Tensor) -> None:
    if tensor.dtype == torch.float64:
        raise TypeError(f"{op}: backend 'triton' sums in float32; backend 'torch' takes float64")
