"""The step of each position and channel, the softplus of dt_proj's product, computed where it is used.

The operands of the product must fit in registers together with the tile:

    resident  16 bits, rank 16: the weights stay in registers for the whole chunk
    reloaded  otherwise: the weights are loaded again for each tile
    sliced    large ranks (float32: above 32): weights and low-rank steps are loaded 16 ranks at a time, in
              a loop of a length unknown to the assembler, so that it does not unroll it
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import load_where, multiply, opaque, rows_in_lanes, softplus
from vlmprof.kernels.ss2d.packing import LEAST_RANK, WHOLE_RANK, WHOLE_RANK_FLOAT32
from vlmprof.kernels.ss2d.tile import LANES, T, is_partial, load_channels

SLICE = tl.constexpr(LEAST_RANK)  # ranks of a slice


@triton.constexpr_function
def is_resident(rank: int, element: tl.dtype) -> bool:
    """Return whether the weights of dt_proj stay in registers, for this RANK and dtype."""
    return rank == SLICE.value and element != tl.float32


@triton.constexpr_function
def is_sliced(rank: int, element: tl.dtype) -> bool:
    """Return whether the product of dt_proj is computed 16 ranks at a time, because it would not fit into
    registers as a whole. In float32, the limit is lower, because every factor is split in two."""
    return rank > (WHOLE_RANK_FLOAT32 if element == tl.float32 else WHOLE_RANK)


class Projection(NamedTuple):
    """dt_proj of one direction, for the low and for the high channels."""

    weights: tl.tuple  # (LANES, RANK), where they are resident
    bias: tl.tuple  # (LANES,)


@triton.jit
def load_projection(inputs, K, V: tl.constexpr):
    """What stays in registers for a whole chunk: the bias, and the weights where they are resident."""
    low = 0
    high = 0
    if is_resident(V.RANK, V.ELEMENT):
        r = tl.arange(0, V.RANK)
        low = _load_weights(inputs.weight, inputs.words, r, K, 0, V)
        high = _load_weights(inputs.weight, inputs.words, r, K, 1, V)
    return Projection((low, high), load_channels(inputs.bias + K * V.D, inputs.words, V.D))


@triton.jit
def load_low_rank(inputs, place, K, V: tl.constexpr):
    """The tile's low-rank steps, (RANK, T) in the dtype of x, for both halves; nothing where sliced."""
    low_rank = 0
    if not is_sliced(V.RANK, V.ELEMENT):
        low_rank = _load_ranks(inputs.p, place, tl.arange(0, V.RANK), K, V)
    return low_rank


@triton.jit
def tile_steps(
    inputs, place, low_rank, projection, K, HALF: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr
):  # fmt: skip
    """Steps of the low (HALF 0) or the high channels, (T, LANES) float32; 0 where no position exists.

    low_rank: (RANK, T). The weights are zero beyond the rank, where the low-rank steps end in B and C. With
    the weights on the left the product takes them as they are loaded; on the right each would be copied to
    where the other half of its pair is.
    """
    weights = projection.weights[HALF]
    product = tl.broadcast_to(projection.bias[HALF][:, None], [LANES, T])
    if is_sliced(V.RANK, V.ELEMENT):
        for slice_start in range(0, opaque(V.RANK), SLICE):
            r = slice_start + tl.arange(0, SLICE)
            ranks = _load_ranks(inputs.p, place, r, K, V)  # (SLICE, T)
            columns = _load_weights(inputs.weight, inputs.words, r, K, HALF, V)  # (LANES, SLICE)
            product = multiply(columns, ranks, product, tl.float32 == V.ELEMENT)
    else:
        if not is_resident(V.RANK, V.ELEMENT):
            # a hidden address keeps the loads in the loop; a multiple of 8 keeps them wide
            weight_ptr = inputs.weight + 8 * opaque(0)
            r = tl.arange(0, V.RANK)
            weights = _load_weights(weight_ptr, inputs.words, r, K, HALF, V)  # (LANES, RANK)
        product = multiply(weights, low_rank, product, tl.float32 == V.ELEMENT)
    steps = softplus(rows_in_lanes(tl.trans(product)), tl.float32 == V.ELEMENT)  # (T, LANES)
    if not INTERIOR:
        steps = tl.where(place.exists[:, None], steps, 0.0)
    return steps


@triton.jit
def _load_ranks(p_ptr, place, r, K, V: tl.constexpr):
    """Ranks r of the tile's low-rank steps, (ranks, T); zeros beyond the block."""
    block = place.first * (4 * V.KW) + K * V.KW
    offsets = place.relative[None, :] * (4 * V.KW) + r[:, None]
    return load_where(p_ptr + block + offsets, (r < V.KW)[:, None], V.RANK > V.KW)


@triton.jit
def _load_weights(weight_ptr, words, r, K, HALF: tl.constexpr, V: tl.constexpr):
    """Weights of ranks r, (LANES, ranks); weight_ptr: (4, 2, D / 2, RANK), zeros beyond D."""
    D2: tl.constexpr = V.D // 2
    offsets = ((K * 2 + HALF) * D2 + words[:, None]) * V.RANK + r[None, :]
    return load_where(weight_ptr + offsets, (words < D2)[:, None], is_partial(V.D))
