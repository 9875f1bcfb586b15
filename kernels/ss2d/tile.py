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

from vlmprof.kernels.common.device_math import (
    exp2_fast,
    last_row,
    load_where,
    opaque,
    rows_in_lanes,
    scan_rows,
    split_pair,
)


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
def load_x(x_ptr, first, relative, words, D: tl.constexpr, ELEMENT: tl.constexpr, INTERIOR: tl.constexpr):
    """x (T, 32) of both halves of the channels, and its offsets; x_ptr: words of two, (pixels, D / 2)."""
    D2: tl.constexpr = D // 2
    offsets = relative[:, None] * D2 + words[None, :]
    if INTERIOR:
        # none is negative: an unsigned offset takes one instruction less to add to a base
        offsets = offsets.to(tl.uint32)
    x = load_where(x_ptr + first * D2 + offsets, (words < D2)[None, :], D % 64 != 0)
    x_low, x_high = split_pair(x, ELEMENT)
    return x_low, x_high, offsets


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
def load_channels(pointers, words, D: tl.constexpr):
    """(32,) values of the lower and of the higher channel of each word; zeros beyond D."""
    inside = 2 * words < D
    low = load_where(pointers + 2 * words, inside, D % 64 != 0)
    high = load_where(pointers + 2 * words + 1, inside, D % 64 != 0)
    return low, high
