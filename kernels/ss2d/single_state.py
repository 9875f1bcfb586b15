"""The two passes over chunks for d_state 1, with the states in registers.

    summary   grid (chunks, channel blocks, 4 · batch)   each chunk's sum of steps and end state from 0
    (carry)                                              the state that enters each chunk: carry.py
    output    grid (chunks, channel blocks, batch)       by rows, then by columns: both directions of a
                                                         chunk by the same lanes, y added in place

Every array is addressed by a 64-bit base per tile and 32-bit offsets inside it.

EDGES says that some tiles reach over an edge, as none does where whole tiles fill the image or, by
columns, each column. Without the path for such tiles the kernels take fewer registers, so that more
of them run at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import join_pair, load_where, split_pair, store_where, sum_rows
from vlmprof.kernels.ss2d.steps import keep_weights, load_low_rank, tile_steps
from vlmprof.kernels.ss2d.tile import load_b_c, load_channels, load_x, scan_tile, tile_pixels

UNALIGNED = ["x_ptr", "bc_ptr", "y_ptr", "out_ptr"]
SIZES = ["height", "width", "chunks", "tiles"]


@triton.jit
def _summarise_tile(
    x_ptr, p_ptr, bc_ptr, weight_ptr, kept, biases, decays, states, sums, start, words, height, width,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    ELEMENT: tl.constexpr, INTERIOR: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """The tile's effect on the states and on the sums of steps, for both halves of the channels."""
    first, relative, exists = tile_pixels(start, height, width, K % 2 == 1, K >= 2, INTERIOR, LOW)
    x_low, x_high, _ = load_x(x_ptr, first, relative, words, D, ELEMENT, INTERIOR)
    low_rank = load_low_rank(p_ptr, first, relative, K, KW, RANK, ELEMENT)
    B, _ = load_b_c(bc_ptr, first, relative, K, 0, KW, 1, ELEMENT, INTERIOR)
    steps_low = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[0], biases[0], first, relative, exists, K, words,
        0, D, KW, RANK, ELEMENT, INTERIOR,
    )  # fmt: skip
    _, low = scan_tile(steps_low, x_low, decays[0], B, states[0])
    steps_high = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[1], biases[1], first, relative, exists, K, words,
        1, D, KW, RANK, ELEMENT, INTERIOR,
    )  # fmt: skip
    _, high = scan_tile(steps_high, x_high, decays[1], B, states[1])
    return (low, high), (sums[0] + sum_rows(steps_low, x_low, 16), sums[1] + sum_rows(steps_high, x_high, 16))


@triton.jit
def _summarise_chunk(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, chunk, words,
    height, width, chunks, tiles,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr,
    LOW: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = 16
    length = height * width
    kept = keep_weights(weight_ptr, K, words, D, RANK, ELEMENT)
    biases = load_channels(bias_ptr + K * D, words, D)
    decays = load_channels(a_ptr + K * D, words, D)
    zeros = tl.zeros([32], tl.float32)
    states = (zeros, zeros)
    sums = (zeros, zeros)
    present = min(tiles, tl.cdiv(length, T) - chunk * tiles)
    for j in range(0, present):
        tile = (present - 1 - j) if K >= 2 else j
        start = (chunk * tiles + tile) * T
        interior = start + T <= length
        if K % 2 == 1:
            interior = interior & (start % height + T <= height)
        if interior or not EDGES:
            states, sums = _summarise_tile(
                x_ptr, p_ptr, bc_ptr, weight_ptr, kept, biases, decays, states, sums, start, words,
                height, width, K, D, KW, RANK, ELEMENT, True, LOW,
            )  # fmt: skip
        else:
            states, sums = _summarise_tile(
                x_ptr, p_ptr, bc_ptr, weight_ptr, kept, biases, decays, states, sums, start, words,
                height, width, K, D, KW, RANK, ELEMENT, False, LOW,
            )  # fmt: skip
    at = (K * chunks + chunk).to(tl.int64) * D + 2 * words
    inside = 2 * words < D
    store_where(sum_ptr + at, sums[0], inside, D % 64 != 0)
    store_where(sum_ptr + at + 1, sums[1], inside, D % 64 != 0)
    store_where(end_ptr + at, states[0], inside, D % 64 != 0)
    store_where(end_ptr + at + 1, states[1], inside, D % 64 != 0)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def summary_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, height, width, chunks, tiles,
    D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr, LOW: tl.constexpr,
    EDGES: tl.constexpr,
):  # fmt: skip
    """Sum of steps and end state from 0 of each chunk: sum, end (batch, 4, chunks, D), float32."""
    chunk = tl.program_id(0)
    words = tl.program_id(1) * 32 + tl.arange(0, 32)
    image = (tl.program_id(2) // 4).to(tl.int64)
    direction = tl.program_id(2) % 4
    pixels = image * height * width
    x_ptr += pixels * (D // 2)
    p_ptr += pixels * (4 * KW)
    bc_ptr += pixels * (2 * KW)
    sum_ptr += image * 4 * chunks * D
    end_ptr += image * 4 * chunks * D
    for k in tl.static_range(4):
        if direction == k:
            _summarise_chunk(
                x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, chunk, words,
                height, width, chunks, tiles, k, D, KW, RANK, ELEMENT, LOW, EDGES,
            )  # fmt: skip


@triton.jit
def _output_tile(
    x_ptr, p_ptr, bc_ptr, y_ptr, out_ptr, weight_ptr, kept, biases, decays, skips, states, start, words,
    height, width,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    ELEMENT: tl.constexpr, INTERIOR: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Add one direction of one tile to y, or with the last direction write the sum to out."""
    first, relative, exists = tile_pixels(start, height, width, K % 2 == 1, K >= 2, INTERIOR, LOW)
    lanes = (words < D // 2)[None, :]
    x_low, x_high, offsets = load_x(x_ptr, first, relative, words, D, ELEMENT, INTERIOR)
    low_rank = load_low_rank(p_ptr, first, relative, K, KW, RANK, ELEMENT)
    B, C = load_b_c(bc_ptr, first, relative, K, 0, KW, 1, ELEMENT, INTERIOR)
    steps = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[0], biases[0], first, relative, exists, K, words,
        0, D, KW, RANK, ELEMENT, INTERIOR,
    )  # fmt: skip
    scanned, low = scan_tile(steps, x_low, decays[0], B, states[0])
    y_low = scanned * C
    steps = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[1], biases[1], first, relative, exists, K, words,
        1, D, KW, RANK, ELEMENT, INTERIOR,
    )  # fmt: skip
    scanned, high = scan_tile(steps, x_high, decays[1], B, states[1])
    y_high = scanned * C

    PARTIAL: tl.constexpr = D % 64 != 0
    at = first * (D // 2)
    if K == 0:
        y_low += x_low * skips[0][None, :]
        y_high += x_high * skips[1][None, :]
    else:
        before_low, before_high = split_pair(load_where(y_ptr + at + offsets, lanes, PARTIAL), tl.float32)
        y_low += before_low
        y_high += before_high
    written = lanes & exists[:, None]
    MASKED: tl.constexpr = PARTIAL or not INTERIOR
    if K == 3:
        store_where(out_ptr + at + offsets, join_pair(y_low, y_high, ELEMENT), written, MASKED)
    else:
        store_where(y_ptr + at + offsets, join_pair(y_low, y_high, tl.float32), written, MASKED)
    return low, high


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def output_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, skip_ptr, entering_ptr, y_ptr, out_ptr,
    height, width, chunks, tiles,
    COLUMNS: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr,
    ELEMENT: tl.constexpr, LOW: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """Both directions of each chunk, by rows or by columns, added to y (batch, pixels, D), float32."""
    T: tl.constexpr = 16
    chunk = tl.program_id(0)
    words = tl.program_id(1) * 32 + tl.arange(0, 32)
    image = tl.program_id(2).to(tl.int64)
    length = height * width
    pixels = image * length
    x_ptr += pixels * (D // 2)
    p_ptr += pixels * (4 * KW)
    bc_ptr += pixels * (2 * KW)
    y_ptr += pixels * (D // 2)
    out_ptr += pixels * (D // 2)
    entering_ptr += image * 4 * chunks * D
    present = min(tiles, tl.cdiv(length, T) - chunk * tiles)
    skips = load_channels(skip_ptr, words, D)
    for backward in tl.static_range(2):
        k = COLUMNS + 2 * backward
        kept = keep_weights(weight_ptr, k, words, D, RANK, ELEMENT)
        biases = load_channels(bias_ptr + k * D, words, D)
        decays = load_channels(a_ptr + k * D, words, D)
        states = load_channels(entering_ptr + (k * chunks + chunk).to(tl.int64) * D, words, D)
        if backward:
            tl.debug_barrier()
        for j in range(0, present):
            tile = (present - 1 - j) if backward else j
            start = (chunk * tiles + tile) * T
            interior = start + T <= length
            if COLUMNS:
                interior = interior & (start % height + T <= height)
            if interior or not EDGES:
                states = _output_tile(
                    x_ptr, p_ptr, bc_ptr, y_ptr, out_ptr, weight_ptr, kept, biases, decays, skips, states,
                    start, words, height, width, k, D, KW, RANK, ELEMENT, True, LOW,
                )  # fmt: skip
            else:
                states = _output_tile(
                    x_ptr, p_ptr, bc_ptr, y_ptr, out_ptr, weight_ptr, kept, biases, decays, skips, states,
                    start, words, height, width, k, D, KW, RANK, ELEMENT, False, LOW,
                )  # fmt: skip
