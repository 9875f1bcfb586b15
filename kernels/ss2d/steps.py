"""The step of each position and channel, softplus of dt_proj's product, made where it is used.

What the product needs must fit into the registers beside the tile:

    kept      16 bits, rank 16: the weights stay in registers through the chunk
    fresh     otherwise they are loaded again for each tile
    sliced    large ranks, in float32 past 32: weights and low-rank steps are loaded 16 ranks at a time, in
              a loop whose length the assembler does not know and which it therefore leaves a loop
"""

from __future__ import annotations

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import INTERPRETED, load_where, opaque, rows_in_lanes, softplus


@triton.constexpr_function
def is_kept(rank: int, element: tl.dtype) -> bool:
    """Whether the weights stay in registers."""
    return rank == 16 and element != tl.float32


@triton.constexpr_function
def is_sliced(rank: int, element: tl.dtype) -> bool:
    """Whether the product is taken 16 ranks at a time: the whole would not fit, least of all in float32,
    whose product takes every factor in two parts."""
    return rank > 32 if element == tl.float32 else rank > 64


@triton.jit
def keep_weights(weight_ptr, direction, words, D: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr):
    """Weights of the lower and of the higher channel of each word for a whole chunk, or nothing."""
    low = 0
    high = 0
    if is_kept(RANK, ELEMENT):
        r = tl.arange(0, RANK)
        low = _load_weights(weight_ptr, direction, words, r, 0, D, RANK)
        high = _load_weights(weight_ptr, direction, words, r, 1, D, RANK)
    return low, high


@triton.jit
def load_low_rank(
    p_ptr, first, relative, direction, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr
):
    """The tile's low-rank steps, (RANK, T) in the input's dtype, for both halves; nothing where sliced."""
    low_rank = 0
    if not is_sliced(RANK, ELEMENT):
        low_rank = _load_ranks(p_ptr, first, relative, direction, tl.arange(0, RANK), KW, RANK)
    return low_rank


@triton.jit
def tile_steps(
    low_rank, p_ptr, weight_ptr, kept, bias, first, relative, exists, direction, words,
    HALF: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr,
    INTERIOR: tl.constexpr,
):  # fmt: skip
    """Steps of the lower (HALF 0) or the higher channels, (T, 32) float32; 0 where no position exists.

    bias: (32). The weights are zero beyond the rank, where the low-rank steps end in B and C. With the
    weights on the left the product takes them as they are loaded; on the right each would be copied to
    where the other half of its pair is.
    """
    T: tl.constexpr = 16
    product = tl.broadcast_to(bias[:, None], [32, T])
    if is_sliced(RANK, ELEMENT):
        for slice_start in range(0, opaque(RANK), 16):
            r = slice_start + tl.arange(0, 16)
            ranks = _load_ranks(p_ptr, first, relative, direction, r, KW, RANK)
            weights = _load_weights(weight_ptr, direction, words, r, HALF, D, RANK)
            product = _add_product(weights, ranks, product, ELEMENT)
    else:
        if is_kept(RANK, ELEMENT):
            weights = kept
        else:
            # a hidden address keeps the loads in the loop; a multiple of 8 keeps them wide
            r = tl.arange(0, RANK)
            weights = _load_weights(weight_ptr + 8 * opaque(0), direction, words, r, HALF, D, RANK)
        product = _add_product(weights, low_rank, product, ELEMENT)
    steps = softplus(rows_in_lanes(tl.trans(product)), tl.float32 == ELEMENT)
    if not INTERIOR:
        steps = tl.where(exists[:, None], steps, 0.0)
    return steps


@triton.jit
def _load_ranks(p_ptr, first, relative, direction, r, KW: tl.constexpr, RANK: tl.constexpr):
    """Ranks r of the tile's low-rank steps, (ranks, T); p_ptr: (pixels, 4, KW), zeros beyond the block."""
    block = first * (4 * KW) + direction * KW
    offsets = relative[None, :] * (4 * KW) + r[:, None]
    return load_where(p_ptr + block + offsets, (r < KW)[:, None], RANK > KW)


@triton.jit
def _load_weights(weight_ptr, direction, words, r, HALF: tl.constexpr, D: tl.constexpr, RANK: tl.constexpr):
    """Weights of ranks r, (32, ranks); weight_ptr: (4, 2, D / 2, RANK), zeros beyond D."""
    offsets = ((direction * 2 + HALF) * (D // 2) + words[:, None]) * RANK + r[None, :]
    return load_where(weight_ptr + offsets, (words < D // 2)[:, None], D % 64 != 0)


@triton.jit
def _add_product(weights, ranks, total, ELEMENT: tl.constexpr):
    if INTERPRETED:
        weights = weights.to(tl.float32)
        ranks = ranks.to(tl.float32)
    PRECISION: tl.constexpr = "tf32x3" if tl.float32 == ELEMENT else "tf32"
    return tl.dot(weights, ranks, acc=total, input_precision=PRECISION)
