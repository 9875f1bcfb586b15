"""The two passes over chunks for any d_state: the states of a chunk live in memory, one at a time in
registers.

A chunk's states, (d_state, D), are read and written once per tile by the lanes that own them. So the
registers hold what d_state 1 needs, however many states there are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import join_pair, load_where, split_pair, store_where, sum_rows
from vlmprof.kernels.ss2d.single_state import SIZES, UNALIGNED
from vlmprof.kernels.ss2d.steps import keep_weights, load_low_rank, tile_steps
from vlmprof.kernels.ss2d.tile import load_b_c, load_channels, load_x, scan_tile, tile_pixels


@triton.jit
def _store_channels(pointers, low, high, words, D: tl.constexpr):
    inside = 2 * words < D
    store_where(pointers + 2 * words, low, inside, D % 64 != 0)
    store_where(pointers + 2 * words + 1, high, inside, D % 64 != 0)


@triton.jit
def _load_tile(
    x_ptr, p_ptr, weight_ptr, kept, bias_low, bias_high, first, relative, exists, words,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, RANK: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """x of both halves and its offsets, steps of both halves: (T, 32) each."""
    x_low, x_high, offsets = load_x(x_ptr, first, relative, words, D, ELEMENT, False)
    low_rank = load_low_rank(p_ptr, first, relative, K, KW, RANK, ELEMENT)
    steps_low = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[0], bias_low, first, relative, exists, K, words,
        0, D, KW, RANK, ELEMENT, False,
    )  # fmt: skip
    steps_high = tile_steps(
        low_rank, p_ptr, weight_ptr, kept[1], bias_high, first, relative, exists, K, words,
        1, D, KW, RANK, ELEMENT, False,
    )  # fmt: skip
    return x_low, x_high, offsets, steps_low, steps_high


@triton.jit
def _scan_states(
    bc_ptr, a_ptr, state_ptr, first, relative, x_low, x_high, steps_low, steps_high, y_low, y_high,
    words, direction, D: tl.constexpr, KW: tl.constexpr, N: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """Run every state over the tile, updating it in memory, and add <C, h> to y."""
    for n in range(0, N):
        B, C = load_b_c(bc_ptr, first, relative, direction, n, KW, N, ELEMENT, False)
        a_low, a_high = load_channels(a_ptr + (direction * N + n) * D, words, D)
        h_low, h_high = load_channels(state_ptr + n * D, words, D)
        scanned, h_low = scan_tile(steps_low, x_low, a_low, B, h_low)
        y_low += scanned * C
        scanned, h_high = scan_tile(steps_high, x_high, a_high, B, h_high)
        y_high += scanned * C
        _store_channels(state_ptr + n * D, h_low, h_high, words, D)
    return y_low, y_high


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def summary_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, sum_ptr, end_ptr, height, width, chunks, tiles,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr,
    ELEMENT: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Sum of steps, (batch, 4, chunks, D), and end states from 0, (batch, 4, chunks, N, D), float32.

    Grid (chunks, channel blocks, batch), one direction K.
    """
    T: tl.constexpr = 16
    chunk = tl.program_id(0)
    words = tl.program_id(1) * 32 + tl.arange(0, 32)
    image = tl.program_id(2).to(tl.int64)
    length = height * width
    x_ptr += image * length * (D // 2)
    p_ptr += image * length * (4 * KW)
    bc_ptr += image * length * (2 * KW)
    at = (image * 4 + K) * chunks + chunk
    kept = keep_weights(weight_ptr, K, words, D, RANK, ELEMENT)
    bias_low, bias_high = load_channels(bias_ptr + K * D, words, D)
    sum_low = tl.zeros([32], tl.float32)
    sum_high = tl.zeros([32], tl.float32)
    for n in range(0, N):
        _store_channels(end_ptr + (at * N + n) * D, sum_low, sum_high, words, D)
    tl.debug_barrier()
    present = min(tiles, tl.cdiv(length, T) - chunk * tiles)
    for j in range(0, present):
        tile = (present - 1 - j) if K >= 2 else j
        start = (chunk * tiles + tile) * T
        first, relative, exists = tile_pixels(start, height, width, K % 2 == 1, K >= 2, False, LOW)
        x_low, x_high, _, low, high = _load_tile(
            x_ptr, p_ptr, weight_ptr, kept, bias_low, bias_high, first, relative, exists, words,
            K, D, KW, RANK, ELEMENT,
        )  # fmt: skip
        _scan_states(
            bc_ptr, a_ptr, end_ptr + at * N * D, first, relative, x_low, x_high, low, high,
            x_low, x_high, words, K, D, KW, N, ELEMENT,
        )  # fmt: skip
        tl.debug_barrier()
        sum_low += sum_rows(low, x_low, T)
        sum_high += sum_rows(high, x_high, T)
    _store_channels(sum_ptr + at * D, sum_low, sum_high, words, D)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def output_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, skip_ptr, entering_ptr, y_ptr, out_ptr,
    height, width, chunks, tiles,
    K: tl.constexpr, D: tl.constexpr, KW: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr,
    ELEMENT: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """One direction K added to y (batch, pixels, D), float32; the last one writes the sum to out.

    Grid (chunks, channel blocks, batch). `entering` is used up: it holds the running states.
    """
    T: tl.constexpr = 16
    PARTIAL: tl.constexpr = D % 64 != 0
    chunk = tl.program_id(0)
    words = tl.program_id(1) * 32 + tl.arange(0, 32)
    image = tl.program_id(2).to(tl.int64)
    length = height * width
    x_ptr += image * length * (D // 2)
    p_ptr += image * length * (4 * KW)
    bc_ptr += image * length * (2 * KW)
    y_ptr += image * length * (D // 2)
    out_ptr += image * length * (D // 2)
    entering_ptr += ((image * 4 + K) * chunks + chunk) * N * D
    kept = keep_weights(weight_ptr, K, words, D, RANK, ELEMENT)
    bias_low, bias_high = load_channels(bias_ptr + K * D, words, D)
    skip_low, skip_high = load_channels(skip_ptr, words, D)
    lanes = (words < D // 2)[None, :]
    present = min(tiles, tl.cdiv(length, T) - chunk * tiles)
    for j in range(0, present):
        tile = (present - 1 - j) if K >= 2 else j
        start = (chunk * tiles + tile) * T
        first, relative, exists = tile_pixels(start, height, width, K % 2 == 1, K >= 2, False, LOW)
        x_low, x_high, offsets, low, high = _load_tile(
            x_ptr, p_ptr, weight_ptr, kept, bias_low, bias_high, first, relative, exists, words,
            K, D, KW, RANK, ELEMENT,
        )  # fmt: skip
        at = first * (D // 2)
        if K == 0:
            y_low = x_low * skip_low[None, :]
            y_high = x_high * skip_high[None, :]
        else:
            y_low, y_high = split_pair(load_where(y_ptr + at + offsets, lanes, PARTIAL), tl.float32)
        y_low, y_high = _scan_states(
            bc_ptr, a_ptr, entering_ptr, first, relative, x_low, x_high, low, high, y_low, y_high,
            words, K, D, KW, N, ELEMENT,
        )  # fmt: skip
        tl.debug_barrier()
        written = lanes & exists[:, None]
        if K == 3:
            tl.store(out_ptr + at + offsets, join_pair(y_low, y_high, ELEMENT), mask=written)
        else:
            tl.store(y_ptr + at + offsets, join_pair(y_low, y_high, tl.float32), mask=written)
