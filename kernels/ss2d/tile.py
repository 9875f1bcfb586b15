"""One tile of one direction: T positions in scan order, two channels per lane of one warp.

Each lane owns two adjacent channels, loaded as one word, and all positions of the tile, so the scan
along positions stays within a lane. This layout depends on loading words one by one. Triton would
load wider and split the positions among lanes if it knew the alignment of x and y, which is therefore
hidden from it, or if a wide load in the same loop had the shape of the tile, (T, LANES), which neither
operand of the matrix product has.

Row i of a tile is its i-th position in scan order, so the reversed directions run the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import (
    exp2_fast,
    flip_rows,
    join_pair,
    last_row,
    load_where,
    opaque,
    rows_in_lanes,
    scan_along,
    split_pair,
    store_where,
)
from vlmprof.kernels.ss2d.chunks import CHANNELS, POSITIONS

T = tl.constexpr(POSITIONS)
LANES = tl.constexpr(32)  # of a warp: one word of each position for each
BLOCK = tl.constexpr(CHANNELS)  # channels of a program: two for each lane
LOADING_LANES = tl.constexpr(2)  # load each word of B and C, so that a load of T words fills the warp

UNALIGNED = ["x_ptr", "bc_ptr", "y_ptr", "out_ptr"]
"""Kernel parameters whose alignment is hidden from Triton."""
SIZES = ["height", "width", "chunks", "tiles"]
"""Kernel parameters whose values Triton does not specialize on."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of a kernel, as in the glossary."""

    D: int
    KW: int
    N: int
    RANK: int
    ELEMENT: tl.dtype
    FEW_ROWS: bool = False
    EDGES: bool = True


class Inputs(NamedTuple):
    """The inputs of both passes for one image and channel block."""

    x: tl.tensor  # pointers to the image's first pixel
    p: tl.tensor
    bc: tl.tensor
    weight: tl.tensor  # pointers to the parameters of all directions
    bias: tl.tensor
    a: tl.tensor
    height: tl.tensor
    width: tl.tensor
    words: tl.tensor  # (LANES,): words of a pixel that this program owns, one for each lane


class Place(NamedTuple):
    """The positions of a tile in the image."""

    first: tl.tensor  # int64: pixel of the first position
    relative: tl.tensor  # (T,) int32: pixels relative to it
    exists: tl.tensor  # (T,): whether the sequence has this position


@triton.constexpr_function
def is_partial(channels: int) -> bool:
    """Return whether the last block of this many channels has lanes without a channel."""
    return channels % BLOCK.value != 0


@triton.jit
def image_inputs(pointers, image, height, width, V: tl.constexpr):
    """The inputs of one image, int64, for this program's channel block; pointers: to those of all images."""
    x, p, bc, weight, bias, a = pointers
    words = tl.program_id(1) * LANES + tl.arange(0, LANES)
    pixels = image * (height * width)
    return Inputs(
        x + pixels * (V.D // 2),
        p + pixels * (4 * V.KW),
        bc + pixels * (2 * V.KW),
        weight,
        bias,
        a,
        height,
        width,
        words,
    )


@triton.jit
def tile_place(inputs, start, K: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr):
    """Where the tile that begins at position `start` of direction K's sequence is.

    A position beyond the image's end stands on the tile's first pixel, so that loads need no mask.
    An INTERIOR tile takes no division and no mask.
    """
    REVERSE: tl.constexpr = K >= 2
    height = inputs.height
    width = inputs.width
    i = tl.arange(0, T)  # (T,)
    forward = (T - 1 - i) if REVERSE else i
    if K % 2 == 1:
        row = start % height
        first = row * width + start // height
        step = opaque(width)
        below = row + forward
        if INTERIOR:
            relative = forward * step
        elif V.FEW_ROWS:
            relative = (below % height) * step + below // height - row * step
        else:
            relative = forward * step - tl.where(below >= height, height * step - 1, 0)
    else:
        first = start
        relative = forward
    exists = start + forward < height * width
    if not INTERIOR:
        relative = tl.where(exists, relative, 0)
    return Place(first.to(tl.int64), relative, exists)


@triton.jit
def load_x(inputs, place, V: tl.constexpr, INTERIOR: tl.constexpr):
    """x of both halves of the channels, (T, LANES) float32 each, and the words' offsets, (T, LANES)."""
    D2: tl.constexpr = V.D // 2
    offsets = place.relative[:, None] * D2 + inputs.words[None, :]  # (T, LANES)
    if INTERIOR:
        # none is negative: an unsigned offset takes one instruction less to add to a base
        offsets = offsets.to(tl.uint32)
    inside = (inputs.words < D2)[None, :]
    x = load_where(inputs.x + place.first * D2 + offsets, inside, is_partial(V.D))  # (T, LANES) words
    return split_pair(x, V.ELEMENT), offsets


@triton.jit
def load_b_c(inputs, place, K, n, V: tl.constexpr, INTERIOR: tl.constexpr):
    """B and C of state n in direction K, (T, LANES) float32, the same for all channels.

    Two lanes load each word, and all lanes get it from them before they take it apart. A load that does
    not fill the warp counts as cheap: every lane would load all T words, in T instructions.
    """
    KW2: tl.constexpr = V.KW // 2
    SHARING: tl.constexpr = LANES // LOADING_LANES
    offsets = tl.broadcast_to(place.relative[:, None], [T, LOADING_LANES]) * (4 * KW2)
    if INTERIOR:
        offsets = offsets.to(tl.uint32)
    base = inputs.bc + place.first * (4 * KW2) + K * KW2 + (KW2 - V.N + n)
    words = tl.load(base + offsets)  # (T, LOADING_LANES)
    words = tl.broadcast_to(words[:, :, None], [T, LOADING_LANES, SHARING])
    words = tl.reshape(words, [T, LANES])
    return split_pair(rows_in_lanes(words), V.ELEMENT)


@triton.jit
def scan_tile(steps, x, A2, B, state, BACKWARD: tl.constexpr = False):
    """States h = exp2(A2 step) h + step x B along the tile, (T, LANES), and the last of them, (LANES,).

    steps, x, B: (T, LANES); A2, state: (LANES,). All are float32. BACKWARD scans from the last row to the
    first, and returns the states in the order of the rows.
    """
    i = tl.arange(0, T)
    decay, drive = _decay_and_drive(steps, x, A2, B, BACKWARD)
    drive = tl.where(i[:, None] == 0, decay * state[None, :] + drive, drive)
    _, states = scan_along(decay, drive, 0, T)
    last = last_row(states, T)
    return flip_rows(states, T) if BACKWARD else states, last


@triton.jit
def fold_tile(steps, x, A2, B, BACKWARD: tl.constexpr):
    """Decay of a state that crosses the tile, and the end state from 0, (LANES,) each."""
    decay, drive = _decay_and_drive(steps, x, A2, B, BACKWARD)
    decays, states = scan_along(decay, drive, 0, T)
    return last_row(decays, T), last_row(states, T)


@triton.jit
def _decay_and_drive(steps, x, A2, B, BACKWARD: tl.constexpr):
    """Both factors of each position in scan order, (T, LANES)."""
    decay = exp2_fast(steps * A2[None, :])
    drive = steps * x * B
    if BACKWARD:
        decay = flip_rows(decay, T)
        drive = flip_rows(drive, T)
    return decay, drive


@triton.jit
def load_channels(pointers, words, D: tl.constexpr):
    """The values of the low and of the high channel of each word, (LANES,) each; zeros beyond D."""
    inside = 2 * words < D
    low = load_where(pointers + 2 * words, inside, is_partial(D))
    high = load_where(pointers + 2 * words + 1, inside, is_partial(D))
    return low, high


@triton.jit
def store_channels(pointer, offset, values, words, D: tl.constexpr):
    """The inverse of `load_channels` at pointer + offset; values: (LANES,) of each half."""
    offsets = offset + 2 * words  # (LANES,)
    for half in tl.static_range(2):
        store_where(pointer + offsets + half, values[half], 2 * words < D, is_partial(D))


@triton.jit
def load_words(pointers, words, D: tl.constexpr):
    """`load_channels` of float32 arrays addressed as words of two channels."""
    return split_pair(load_where(pointers + words, 2 * words < D, is_partial(D)), tl.float32)


@triton.jit
def store_words(pointers, values, words, D: tl.constexpr):
    """The inverse of `load_words`."""
    pair = join_pair(values[0], values[1], tl.float32)
    store_where(pointers + words, pair, 2 * words < D, is_partial(D))


@triton.jit
def tiles_present(inputs, chunk, tiles):
    """How many tiles the chunk has: `tiles`, or fewer at the end of the sequence."""
    return min(tiles, tl.cdiv(inputs.height * inputs.width, T) - chunk * tiles)


@triton.jit
def tile_start(j, present, chunk, tiles, K: tl.constexpr):
    """The first position of the chunk's j-th tile in scan order."""
    tile = (present - 1 - j) if K >= 2 else j
    return (chunk * tiles + tile) * T
