"""One tile of one direction: 16 positions in scan order, 64 channels, one warp.

Each lane owns two neighbouring channels, loaded as one word, and all positions of the tile, so the
scan along positions stays inside a lane. That layout holds because words are loaded one by one. Triton
would load wider, and split the positions among lanes, if it knew the alignment of x and y, which the
kernels therefore keep from it, or if a wide load in the same loop had the tile's shape (T, 32), as
neither operand of the matrix product has.

Row i of a tile is its i-th position in scan order, so the reversed directions run the same code.
"""

from __future__ import annotations

import triton
import triton.language as tl
from vlmprof.kernels.device_math import (
    INTERPRETED,
    exp2_fast,
    last_row,
    load_where,
    opaque,
    rows_in_lanes,
    scan_rows,
    softplus,
    split_pair,
)

POSITIONS = 16
"""Positions per tile, T in the kernels: the least number of rows of a tensor-core product."""

CHANNELS = 64
"""Channels per program: two for each of 32 lanes."""


@triton.jit
def tile_pixels(
    start, height, width,
    COLUMNS: tl.constexpr, REVERSE: tl.constexpr, INTERIOR: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Pixel of the tile's first position, (T,) pixels relative to it, and which positions exist.

    A position beyond the image's end stands on the tile's first pixel, so that loads need no mask.
    INTERIOR tiles lie inside the image and, by columns, inside one column: no division, no mask.
    LOW images have fewer than T rows, so that a tile may reach over several columns.
    """
    T: tl.constexpr = 16
    i = tl.arange(0, T)
    forward = (T - 1 - i) if REVERSE else i
    if COLUMNS:
        row = start % height
        first = row * width + start // height
        step = opaque(width)
        below = row + forward
        if INTERIOR:
            relative = forward * step
        elif LOW:
            relative = (below % height) * step + below // height - row * step
        else:
            relative = forward * step - tl.where(below >= height, height * step - 1, 0)
    else:
        first = start
        relative = forward
    exists = start + forward < height * width
    if not INTERIOR:
        relative = tl.where(exists, relative, 0)
    return first.to(tl.int64), relative, exists


@triton.jit
def load_tile(
    x_ptr, p_ptr, first, relative, words, direction,
    D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr, INTERIOR: tl.constexpr,
):  # fmt: skip
    """x (T, 32) of both halves of the channels, low-rank steps (RANK, T), and the offsets of x.

    x_ptr: words of two channels, (pixels, D / 2). p_ptr: (pixels, 4, KW), each block the low-rank steps,
    then B and C of the states side by side.
    """
    D2: tl.constexpr = D // 2
    r = tl.arange(0, RANK)
    offsets = relative[:, None] * D2 + words[None, :]
    if INTERIOR:
        # none is negative: an unsigned offset takes one instruction less to add to a base
        offsets = offsets.to(tl.uint32)
    lanes = (words < D2)[None, :]
    x_low, x_high = split_pair(load_where(x_ptr + first * D2 + offsets, lanes, D % 64 != 0), ELEMENT)

    block = first * (4 * KW) + direction * KW
    rank_offsets = relative[None, :] * (4 * KW) + r[:, None]
    dts = load_where(p_ptr + block + rank_offsets, (r < KW)[:, None], RANK > KW)
    return x_low, x_high, dts, offsets


@triton.jit
def load_b_c(
    bc_ptr, first, relative, direction, n,
    KW: tl.constexpr, N: tl.constexpr, ELEMENT: tl.constexpr, INTERIOR: tl.constexpr,
):  # fmt: skip
    """B and C of state n, (T, 32), the same for all channels; bc_ptr: p_ptr's memory as words of two values.

    Two lanes load each word, and all lanes get it from them before they take it apart. A load that does
    not fill the warp counts as cheap: every lane would load all T words, in T instructions.
    """
    T: tl.constexpr = 16
    offsets = tl.broadcast_to(relative[:, None], [T, 2]) * (2 * KW)
    if INTERIOR:
        offsets = offsets.to(tl.uint32)
    words = tl.load(bc_ptr + first * (2 * KW) + direction * (KW // 2) + (KW // 2 - N + n) + offsets)
    words = tl.reshape(tl.broadcast_to(words[:, :, None], [T, 2, 16]), [T, 32])
    return split_pair(rows_in_lanes(words), ELEMENT)


@triton.jit
def tile_steps(dts, dt_weight, dt_bias, exists, INTERIOR: tl.constexpr, PRECISE: tl.constexpr):
    """softplus(dt_proj) for one half of the channels, (T, 32); 0 where no position exists.

    dts: (R, T) in the input's dtype; dt_weight: (32, R), zero beyond the rank, where dts may hold B and C;
    dt_bias: (32). With the weights on the left the product takes them as they are loaded; on the right each
    would be copied to where the other half of its pair is.
    """
    T: tl.constexpr = 16
    if INTERPRETED:
        dts = dts.to(tl.float32)
        dt_weight = dt_weight.to(tl.float32)
    bias = tl.broadcast_to(dt_bias[:, None], [32, T])
    product = tl.dot(dt_weight, dts, acc=bias, input_precision="tf32x3" if PRECISE else "tf32")
    steps = softplus(rows_in_lanes(tl.trans(product)), PRECISE)
    if not INTERIOR:
        steps = tl.where(exists[:, None], steps, 0.0)
    return steps


@triton.jit
def scan_tile(steps, x, A2, B, state):
    """States h = exp2(A2 step) h + step x B along the tile, (T, 32), and the last of them, (32)."""
    T: tl.constexpr = 16
    i = tl.arange(0, T)
    decay = exp2_fast(steps * A2[None, :])
    drive = steps * x * B
    drive = tl.where(i[:, None] == 0, decay * state[None, :] + drive, drive)
    _, states = scan_rows(decay, drive, T)
    return states, last_row(states, T)


@triton.jit
def load_dt_weight(weight_ptr, direction, words, HALF: tl.constexpr, D: tl.constexpr, RANK: tl.constexpr):
    """(32, RANK) weights of the lower (HALF 0) or the higher channel of each word; zeros beyond D."""
    r = tl.arange(0, RANK)
    offsets = ((direction * 2 + HALF) * (D // 2) + words[:, None]) * RANK + r[None, :]
    return load_where(weight_ptr + offsets, (words < D // 2)[:, None], D % 64 != 0)


@triton.jit
def kept_dt_weight(
    weight_ptr, kept, direction, words, HALF: tl.constexpr, D: tl.constexpr, RANK: tl.constexpr
):
    """The weights kept in registers through the chunk, or, where they would fill these, fresh ones.

    They would in float32, at twice the registers, and where the rank is above 16. The base address is
    hidden, so that the loads stay in the loop; a multiple of 8 keeps them wide.
    """
    KEEP: tl.constexpr = RANK == 16 and kept.dtype != tl.float32
    return kept if KEEP else load_dt_weight(weight_ptr + 8 * opaque(0), direction, words, HALF, D, RANK)


@triton.jit
def load_channels(pointers, words, D: tl.constexpr):
    """(32,) values of the lower and of the higher channel of each word; zeros beyond D."""
    inside = 2 * words < D
    low = load_where(pointers + 2 * words, inside, D % 64 != 0)
    high = load_where(pointers + 2 * words + 1, inside, D % 64 != 0)
    return low, high
