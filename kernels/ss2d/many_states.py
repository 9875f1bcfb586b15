"""The two passes over chunks for any d_state. The states of a chunk are in memory, with one at a time in
registers.

The lanes that own a chunk's states, (d_state, D), read and write them once per tile. The register use is
therefore that of d_state 1 for any number of states.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import join_pair, load_where, split_pair, sum_rows
from vlmprof.kernels.ss2d.steps import load_low_rank, load_projection, tile_steps
from vlmprof.kernels.ss2d.tile import (
    LANES,
    SIZES,
    UNALIGNED,
    T,
    image_inputs,
    is_partial,
    load_b_c,
    load_channels,
    load_x,
    scan_tile,
    store_channels,
    tile_place,
    tile_start,
    tiles_present,
)


@triton.jit
def _load_tile(inputs, projection, place, K: tl.constexpr, V: tl.constexpr):
    """x and the steps of both halves, (T, LANES) each, and the words' offsets, (T, LANES)."""
    x, offsets = load_x(inputs, place, V, False)
    low_rank = load_low_rank(inputs, place, K, V)  # (RANK, T)
    steps = ()
    for half in tl.static_range(2):
        steps += (tile_steps(inputs, place, low_rank, projection, K, half, V, False),)
    return x, steps, offsets


@triton.jit
def _scan_states(inputs, state_ptr, place, x, steps, y, K: tl.constexpr, V: tl.constexpr):
    """Run every state over the tile, updating it in memory, and add <C, h> to y, (T, LANES) of each half."""
    for n in range(0, V.N):
        B, C = load_b_c(inputs, place, K, n, V, False)  # (T, LANES)
        a = load_channels(inputs.a + (K * V.N + n) * V.D, inputs.words, V.D)  # (LANES,)
        before = load_channels(state_ptr + n * V.D, inputs.words, V.D)
        after = ()
        y_after = ()
        for half in tl.static_range(2):
            states, last = scan_tile(steps[half], x[half], a[half], B, before[half])  # (T, LANES), (LANES,)
            after += (last,)
            y_after += (y[half] + states * C,)
        y = y_after
        store_channels(state_ptr, n * V.D, after, inputs.words, V.D)
    return y


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def summary_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, height, width, chunks, tiles,
    K: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Sum of steps, (batch, 4, chunks, D), and end states from 0, (batch, 4, chunks, N, D), float32.

    Grid (chunks, channel blocks, batch), one direction K.
    """
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    inputs = image_inputs((x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr), image, height, width, V)
    at = (image * 4 + K) * chunks + chunk
    projection = load_projection(inputs, K, V)
    zeros = tl.zeros([LANES], tl.float32)
    sums = (zeros, zeros)
    for n in range(0, V.N):
        store_channels(end_ptr, (at * V.N + n) * V.D, sums, inputs.words, V.D)
    tl.debug_barrier()
    present = tiles_present(inputs, chunk, tiles)
    for j in range(0, present):
        place = tile_place(inputs, tile_start(j, present, chunk, tiles, K), K, V, False)
        x, steps, _ = _load_tile(inputs, projection, place, K, V)
        _scan_states(inputs, end_ptr + at * V.N * V.D, place, x, steps, x, K, V)
        tl.debug_barrier()
        sums = (sums[0] + sum_rows(steps[0], x[0], T), sums[1] + sum_rows(steps[1], x[1], T))
    store_channels(sum_ptr, at * V.D, sums, inputs.words, V.D)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def output_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, skip_ptr, entering_ptr, y_ptr, out_ptr,
    height, width, chunks, tiles,
    K: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """One direction K added to y (batch, pixels, D), float32; the last one writes the sum to out.

    Grid (chunks, channel blocks, batch). `entering` is used up: it holds the running states.
    """
    PARTIAL: tl.constexpr = is_partial(V.D)
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    inputs = image_inputs((x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr), image, height, width, V)
    pixels = image * (height * width)
    y_ptr += pixels * (V.D // 2)
    out_ptr += pixels * (V.D // 2)
    entering_ptr += ((image * 4 + K) * chunks + chunk) * V.N * V.D
    projection = load_projection(inputs, K, V)
    skip = load_channels(skip_ptr, inputs.words, V.D)
    inside = (inputs.words < V.D // 2)[None, :]
    present = tiles_present(inputs, chunk, tiles)
    for j in range(0, present):
        place = tile_place(inputs, tile_start(j, present, chunk, tiles, K), K, V, False)
        x, steps, offsets = _load_tile(inputs, projection, place, K, V)
        at = place.first * (V.D // 2)
        if K == 0:
            y = (x[0] * skip[0][None, :], x[1] * skip[1][None, :])
        else:
            y = split_pair(load_where(y_ptr + at + offsets, inside, PARTIAL), tl.float32)  # (T, LANES)
        y = _scan_states(inputs, entering_ptr, place, x, steps, y, K, V)
        tl.debug_barrier()
        pointers = (out_ptr if K == 3 else y_ptr) + at + offsets  # (T, LANES)
        ROUNDED: tl.constexpr = V.ELEMENT if K == 3 else tl.float32
        tl.store(pointers, join_pair(y[0], y[1], ROUNDED), mask=inside & place.exists[:, None])
