"""The two passes over chunks for d_state 1, with the states in registers.

    summary   grid (chunks, channel blocks, 4 · batch)   each chunk's sum of steps and end state from 0
    (carry)                                              the state that enters each chunk: carry.py
    output    grid (chunks, channel blocks, batch)       by rows, then by columns: both directions of a
                                                         chunk by the same lanes, y added in place

Every array is addressed by a 64-bit base per tile and 32-bit offsets inside it.

EDGES is set if some tiles cross an edge. None do if whole tiles fill the image or, for columns, each
column. Without the code path for such tiles, the kernels use fewer registers, so that more of them
run at once.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import join_pair, load_where, split_pair, store_where, sum_rows
from vlmprof.kernels.ss2d.steps import load_low_rank, load_resident_weights, tile_steps
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


class Direction(NamedTuple):
    """The values that a program reads once per direction, for the low and for the high channels."""

    weights: tl.tuple  # (LANES, RANK), where they are resident
    bias: tl.tuple  # (LANES,)
    a: tl.tuple  # (LANES,)


class Outputs(NamedTuple):
    """The outputs of the output pass for one image, and the skip of each half of the channels."""

    y: tl.tensor  # pointers to the image's first pixel
    out: tl.tensor
    skip: tl.tuple  # (LANES,)


@triton.jit
def _load_direction(inputs, bias_ptr, a_ptr, K, V: tl.constexpr):
    return Direction(
        load_resident_weights(inputs, K, V),
        load_channels(bias_ptr + K * V.D, inputs.words, V.D),
        load_channels(a_ptr + K * V.D, inputs.words, V.D),
    )


@triton.jit
def _walk_chunk(
    visit: tl.constexpr, inputs, direction, outputs, carried, chunk, tiles,
    K: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """carried = visit(inputs, direction, outputs, carried, start, K, V, INTERIOR) for each tile of the
    chunk in scan order."""
    length = inputs.height * inputs.width
    present = tiles_present(inputs, chunk, tiles)
    for j in range(0, present):
        start = tile_start(j, present, chunk, tiles, K)
        interior = start + T <= length
        if K % 2 == 1:
            interior = interior & (start % inputs.height + T <= inputs.height)
        # where no tile reaches over an edge, the path for those that do is not compiled
        for INTERIOR in tl.static_range(0 if V.EDGES else 1, 2):
            if interior == INTERIOR or not V.EDGES:
                carried = visit(inputs, direction, outputs, carried, start, K, V, INTERIOR)
    return carried


@triton.jit
def _summarise_tile(
    inputs, direction, outputs, carried, start, K: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr
):  # fmt: skip
    """States and sums of steps after the tile, (LANES,) for both halves of the channels."""
    before, sums_before = carried
    place = tile_place(inputs, start, K, V, INTERIOR)
    x, _ = load_x(inputs, place, V, INTERIOR)  # (T, LANES) for each half
    low_rank = load_low_rank(inputs, place, K, V)  # (RANK, T)
    B, _ = load_b_c(inputs, place, K, 0, V, INTERIOR)  # (T, LANES)
    states = ()
    sums = ()
    for half in tl.static_range(2):
        steps = tile_steps(
            inputs, place, low_rank, direction.weights[half], direction.bias[half], K, half, V, INTERIOR
        )  # (T, LANES)
        _, state = scan_tile(steps, x[half], direction.a[half], B, before[half])
        states += (state,)
        sums += (sums_before[half] + sum_rows(steps, x[half], T),)
    return states, sums


@triton.jit
def _summarise_chunk(inputs, bias_ptr, a_ptr, chunk, tiles, K: tl.constexpr, V: tl.constexpr):
    """End states from 0 and sums of steps of direction K, (LANES,) for both halves of the channels."""
    direction = _load_direction(inputs, bias_ptr, a_ptr, K, V)
    zeros = tl.zeros([LANES], tl.float32)
    nothing = ((zeros, zeros), (zeros, zeros))
    return _walk_chunk(_summarise_tile, inputs, direction, None, nothing, chunk, tiles, K, V)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def summary_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, height, width, chunks, tiles,
    V: tl.constexpr,
):  # fmt: skip
    """Sum of steps and end state from 0 of each chunk: sum, end (batch, 4, chunks, D), float32."""
    chunk = tl.program_id(0)
    image = (tl.program_id(2) // 4).to(tl.int64)
    direction = tl.program_id(2) % 4
    inputs = image_inputs(x_ptr, p_ptr, bc_ptr, weight_ptr, image, height, width, V)
    sum_ptr += image * 4 * chunks * V.D
    end_ptr += image * 4 * chunks * V.D
    for k in tl.static_range(4):
        if direction == k:
            states, sums = _summarise_chunk(inputs, bias_ptr, a_ptr, chunk, tiles, k, V)
            at = (k * chunks + chunk).to(tl.int64) * V.D
            store_channels(sum_ptr, at, sums, inputs.words, V.D)
            store_channels(end_ptr, at, states, inputs.words, V.D)


@triton.jit
def _output_tile(
    inputs, direction, outputs, before, start, K: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr
):  # fmt: skip
    """Add one direction of one tile to y, or with the last direction write the sum to out; return the states
    after the tile, (LANES,) for both halves of the channels."""
    D2: tl.constexpr = V.D // 2
    PARTIAL: tl.constexpr = is_partial(V.D)
    place = tile_place(inputs, start, K, V, INTERIOR)
    inside = (inputs.words < D2)[None, :]
    x, offsets = load_x(inputs, place, V, INTERIOR)  # (T, LANES) for each half
    low_rank = load_low_rank(inputs, place, K, V)  # (RANK, T)
    B, C = load_b_c(inputs, place, K, 0, V, INTERIOR)  # (T, LANES)
    states = ()
    y = ()
    for half in tl.static_range(2):
        steps = tile_steps(
            inputs, place, low_rank, direction.weights[half], direction.bias[half], K, half, V, INTERIOR
        )  # (T, LANES)
        scanned, state = scan_tile(steps, x[half], direction.a[half], B, before[half])
        states += (state,)
        y += (scanned * C,)

    at = place.first * D2
    if K == 0:
        so_far = (x[0] * outputs.skip[0][None, :], x[1] * outputs.skip[1][None, :])
    else:
        so_far = split_pair(load_where(outputs.y + at + offsets, inside, PARTIAL), tl.float32)  # (T, LANES)
    pointers = (outputs.out if K == 3 else outputs.y) + at + offsets  # (T, LANES)
    ROUNDED: tl.constexpr = V.ELEMENT if K == 3 else tl.float32
    pair = join_pair(y[0] + so_far[0], y[1] + so_far[1], ROUNDED)
    store_where(pointers, pair, inside & place.exists[:, None], PARTIAL or not INTERIOR)
    return states


@triton.jit
def _output_chunk(
    inputs, outputs, bias_ptr, a_ptr, entering_ptr, chunk, chunks, tiles, K: tl.constexpr, V: tl.constexpr
):  # fmt: skip
    """Add direction K of the chunk to y, or with the last direction write the sum to out."""
    direction = _load_direction(inputs, bias_ptr, a_ptr, K, V)
    entering = entering_ptr + (K * chunks + chunk).to(tl.int64) * V.D
    states = load_channels(entering, inputs.words, V.D)
    if K >= 2:
        tl.debug_barrier()  # the same lanes read what they wrote to y forwards
    _walk_chunk(_output_tile, inputs, direction, outputs, states, chunk, tiles, K, V)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def output_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, skip_ptr, entering_ptr, y_ptr, out_ptr,
    height, width, chunks, tiles,
    COLUMNS: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Both directions of each chunk, by rows or by columns, added to y (batch, pixels, D), float32."""
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    inputs = image_inputs(x_ptr, p_ptr, bc_ptr, weight_ptr, image, height, width, V)
    pixels = image * (height * width)
    skip = load_channels(skip_ptr, inputs.words, V.D)
    outputs = Outputs(y_ptr + pixels * (V.D // 2), out_ptr + pixels * (V.D // 2), skip)
    entering_ptr += image * 4 * chunks * V.D
    for backward in tl.static_range(2):
        _output_chunk(
            inputs, outputs, bias_ptr, a_ptr, entering_ptr, chunk, chunks, tiles, COLUMNS + 2 * backward, V
        )  # fmt: skip
