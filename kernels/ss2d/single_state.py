"""The two passes over chunks for d_state 1, with the states in registers.

    summary   grid (chunks, channel blocks, 2 · batch)   each chunk's decay and end state from 0, and those of
                                                         the part of it that a backward direction has passed
                                                         before each tile
    (carry)                                              the state that enters each chunk: carry.py
    output    grid (chunks, channel blocks, batch)       by rows, then by columns

Each program takes both directions of its tiles at once, in the order of the image's pixels, so that it loads
x once. The summary walks from the last tile to the first. The output pass walks in the other direction; the
backward state that enters a tile follows from what the summary stored, so that y is written once, complete.

Every array is addressed by a 64-bit base per tile and 32-bit offsets inside it.

EDGES is set if some tiles cross an edge. None do if whole tiles fill the image or, for columns, each
column. Without the code path for such tiles, the kernels use fewer registers, so that more of them
run at once.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import (
    compose,
    join_pair,
    load_where,
    opaque,
    split_pair,
    store_where,
)
from vlmprof.kernels.ss2d.steps import is_resident, load_low_rank, load_projection, tile_steps
from vlmprof.kernels.ss2d.tile import (
    LANES,
    SIZES,
    UNALIGNED,
    T,
    fold_tile,
    image_inputs,
    is_partial,
    load_b_c,
    load_channels,
    load_words,
    load_x,
    scan_tile,
    store_channels,
    store_words,
    tile_place,
    tiles_present,
)


class Direction(NamedTuple):
    """The values that a program reads once per direction."""

    projection: tl.tuple  # a `Projection`
    a: tl.tuple  # (LANES,) for the low and for the high channels


class Outputs(NamedTuple):
    """The outputs of the output pass for one image, and what each half of the channels starts from."""

    y: tl.tensor  # pointers to the image's first pixel
    out: tl.tensor
    skip: tl.tuple  # (LANES,)
    entering: tl.tuple  # (LANES,): the backward state that enters the chunk


class Walk(NamedTuple):
    """What a program reads and writes on its way over the tiles of a chunk."""

    inputs: tl.tuple  # `Inputs`
    directions: tl.tuple  # the forward and the backward `Direction`, by rows or by columns
    outputs: tl.tuple  # `Outputs`, or nothing for the summary
    passed: tl.tensor  # pointer to what the backward direction has passed before each tile of the image


class Tile(NamedTuple):
    """One tile of a walk."""

    start: tl.tensor  # its first position
    passed: tl.tensor  # pointer to what the backward direction has passed before it


@triton.jit
def _load_direction(inputs, K, V: tl.constexpr):
    projection = load_projection(inputs, K, V)
    return Direction(projection, load_channels(inputs.a + K * V.D, inputs.words, V.D))


@triton.jit
def _load_directions(inputs, COLUMNS: tl.constexpr, V: tl.constexpr):
    """The forward and the backward direction, by rows or by columns."""
    return (
        _load_direction(inputs, COLUMNS, V),
        _load_direction(inputs, COLUMNS + 2, V),
    )


@triton.jit
def _tile_of(walk, number, V: tl.constexpr):
    """The tile of this number in the image."""
    return Tile(number * T, walk.passed + number.to(tl.int64) * V.D)


@triton.jit
def _is_interior(inputs, start, COLUMNS: tl.constexpr):
    """Whether the tile that begins at position `start` crosses no edge."""
    interior = start + T <= inputs.height * inputs.width
    if COLUMNS == 1:
        interior = interior & (start % inputs.height + T <= inputs.height)
    return interior


@triton.jit
def _visit(
    visit: tl.constexpr, walk, carried, number, COLUMNS: tl.constexpr, V: tl.constexpr, APART: tl.constexpr
):  # fmt: skip
    """visit(walk, carried, tile, FROM, TO, COLUMNS, V, INTERIOR) for the directions FROM to TO - 1 of a tile.

    APART: one direction after the other at an edge, for kernels that would spill otherwise.
    """
    tile = _tile_of(walk, number, V)
    # where no tile reaches over an edge, the path for those that do is not compiled
    if _is_interior(walk.inputs, tile.start, COLUMNS) or not V.EDGES:
        carried = visit(walk, carried, tile, 0, 2, COLUMNS, V, True)
    elif not APART:
        carried = visit(walk, carried, tile, 0, 2, COLUMNS, V, False)
    else:
        carried = _visit_apart(visit, walk, carried, tile, COLUMNS, V)
    return carried


@triton.jit
def _visit_one(
    visit: tl.constexpr, walk, carried, number,
    BACKWARD: tl.constexpr, COLUMNS: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """`_visit` for one direction, for kernels that walk the whole chunk in one direction, then in the other,
    because both at once would not fit in registers."""
    tile = _tile_of(walk, number, V)
    interior = _is_interior(walk.inputs, tile.start, COLUMNS)
    for INTERIOR in tl.static_range(0 if V.EDGES else 1, 2):
        if interior == INTERIOR or not V.EDGES:
            carried = visit(walk, carried, tile, BACKWARD, BACKWARD + 1, COLUMNS, V, INTERIOR)
    return carried


@triton.jit
def _visit_apart(visit: tl.constexpr, walk, carried, tile, COLUMNS: tl.constexpr, V: tl.constexpr):
    """One direction after the other at an edge. The compiler does not mix them if it can tell neither that
    each loop runs once nor that both are at the same place."""
    for backward in tl.static_range(2):
        for _ in range(0, opaque(1)):
            tl.debug_barrier()  # the same lanes read what they wrote to y forwards
            at = Tile(tile.start if COLUMNS else opaque(tile.start), tile.passed)
            carried = visit(walk, carried, at, backward, backward + 1, COLUMNS, V, False)
    return carried


@triton.jit
def _summarise_tile(
    walk, carried, tile,
    FROM: tl.constexpr, TO: tl.constexpr, COLUMNS: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr,
):  # fmt: skip
    """Decays and end states from 0 of the part of the chunk from the tile on, in both directions, (LANES,)
    for both halves of the channels; store those of the backward direction before the tile."""
    inputs = walk.inputs
    place = tile_place(inputs, tile.start, COLUMNS, V, INTERIOR)
    x, _ = load_x(inputs, place, V, INTERIOR)  # (T, LANES) for each half
    if TO == 2:
        store_words(tile.passed, carried[1][0], inputs.words, V.D)
        store_words(tile.passed + V.D // 2, carried[1][1], inputs.words, V.D)
    after = ()
    if FROM == 1:
        after += (carried[0],)
    for backward in tl.static_range(FROM, TO):
        direction = walk.directions[backward]
        low_rank = load_low_rank(inputs, place, COLUMNS + 2 * backward, V)  # (RANK, T)
        B, _ = load_b_c(inputs, place, COLUMNS + 2 * backward, 0, V, INTERIOR)  # (T, LANES)
        decays, states = carried[backward]
        decays_after = ()
        states_after = ()
        for half in tl.static_range(2):
            steps = tile_steps(
                inputs, place, low_rank, direction.projection, COLUMNS + 2 * backward, half, V, INTERIOR
            )  # (T, LANES)
            decay, state = fold_tile(steps, x[half], direction.a[half], B, backward)
            if backward:
                decay, state = compose(decays[half], states[half], decay, state)
            else:
                decay, state = compose(decay, state, decays[half], states[half])
            decays_after += (decay,)
            states_after += (state,)
        after += ((decays_after, states_after),)
    if TO == 1:
        after += (carried[1],)
    return after


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def summary_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, decay_ptr, end_ptr, passed_ptr,
    height, width, chunks, tiles,
    V: tl.constexpr,
):  # fmt: skip
    """Decay and end state from 0 of each chunk: decay, end (batch, 4, chunks, D), float32.

    passed: (batch, 2, all tiles, 2, D), as words of two channels: decay and end state from 0 of what the
    backward directions have passed of a chunk before each tile.
    """
    chunk = tl.program_id(0)
    image = (tl.program_id(2) // 2).to(tl.int64)
    by_columns = tl.program_id(2) % 2
    inputs = image_inputs((x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr), image, height, width, V)
    decay_ptr += image * 4 * chunks * V.D
    end_ptr += image * 4 * chunks * V.D
    passed_ptr += (image * 2 + by_columns) * tl.cdiv(height * width, T) * V.D
    present = tiles_present(inputs, chunk, tiles)
    TOGETHER: tl.constexpr = not V.EDGES or is_resident(V.RANK, V.ELEMENT)
    zeros = tl.zeros([LANES], tl.float32)
    ones = zeros + 1.0
    for columns in tl.static_range(2):
        if by_columns == columns:
            nothing = ((ones, ones), (zeros, zeros))
            carried = (nothing, nothing)
            if TOGETHER:
                directions = _load_directions(inputs, columns, V)
                walk = Walk(inputs, directions, None, passed_ptr)
                for j in range(0, present):
                    tile = chunk * tiles + present - 1 - j
                    carried = _visit(_summarise_tile, walk, carried, tile, columns, V, True)
            else:
                for backward in tl.static_range(2):
                    directions = _load_directions(inputs, columns, V)
                    walk = Walk(inputs, directions, None, passed_ptr)
                    for j in range(0, present):
                        tile = chunk * tiles + present - 1 - j
                        carried = _visit_one(_summarise_tile, walk, carried, tile, backward, columns, V)
            for backward in tl.static_range(2):
                at = ((columns + 2 * backward) * chunks + chunk).to(tl.int64) * V.D
                store_channels(decay_ptr, at, carried[backward][0], inputs.words, V.D)
                store_channels(end_ptr, at, carried[backward][1], inputs.words, V.D)


@triton.jit
def _output_tile(
    walk, before, tile,
    FROM: tl.constexpr, TO: tl.constexpr, COLUMNS: tl.constexpr, V: tl.constexpr, INTERIOR: tl.constexpr,
):  # fmt: skip
    """Write directions FROM to TO - 1 of one tile by rows to y, or add those by columns and write the sum to
    out; return the forward states after the tile, (LANES,) for both halves of the channels."""
    D2: tl.constexpr = V.D // 2
    PARTIAL: tl.constexpr = is_partial(V.D)
    inputs = walk.inputs
    outputs = walk.outputs
    place = tile_place(inputs, tile.start, COLUMNS, V, INTERIOR)
    x, offsets = load_x(inputs, place, V, INTERIOR)  # (T, LANES) for each half
    decays = load_words(tile.passed, inputs.words, V.D)  # (LANES,)
    ends = load_words(tile.passed + D2, inputs.words, V.D)
    FIRST: tl.constexpr = not COLUMNS and FROM == 0
    LAST: tl.constexpr = COLUMNS and TO == 2
    y = (tl.zeros([T, LANES], tl.float32), tl.zeros([T, LANES], tl.float32))
    if FIRST:
        y = (x[0] * outputs.skip[0][None, :], x[1] * outputs.skip[1][None, :])
    after = before
    for backward in tl.static_range(FROM, TO):
        direction = walk.directions[backward]
        low_rank = load_low_rank(inputs, place, COLUMNS + 2 * backward, V)  # (RANK, T)
        B, C = load_b_c(inputs, place, COLUMNS + 2 * backward, 0, V, INTERIOR)  # (T, LANES)
        y_after = ()
        last = ()
        for half in tl.static_range(2):
            steps = tile_steps(
                inputs, place, low_rank, direction.projection, COLUMNS + 2 * backward, half, V, INTERIOR
            )  # (T, LANES)
            state = decays[half] * outputs.entering[half] + ends[half] if backward else before[half]
            states, state = scan_tile(steps, x[half], direction.a[half], B, state, backward)
            last += (state,)
            y_after += (y[half] + states * C,)
        y = y_after
        if not backward:
            after = last

    inside = (inputs.words < D2)[None, :]
    at = place.first * D2
    if not FIRST:
        # only now: held from the beginning, it would take registers
        so_far = split_pair(load_where(outputs.y + at + offsets, inside, PARTIAL), tl.float32)  # (T, LANES)
        y = (y[0] + so_far[0], y[1] + so_far[1])
    pointers = (outputs.out if LAST else outputs.y) + at + offsets  # (T, LANES)
    ROUNDED: tl.constexpr = V.ELEMENT if LAST else tl.float32
    pair = join_pair(y[0], y[1], ROUNDED)
    store_where(pointers, pair, inside & place.exists[:, None], PARTIAL or not INTERIOR)
    return after


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=UNALIGNED)
def output_kernel(
    x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr, skip_ptr, entering_ptr, passed_ptr, y_ptr, out_ptr,
    height, width, chunks, tiles,
    COLUMNS: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Both directions of each chunk: by rows written to y (batch, pixels, D), float32; by columns added
    to it, and the sum written to out."""
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    inputs = image_inputs((x_ptr, p_ptr, bc_ptr, weight_ptr, bias_ptr, a_ptr), image, height, width, V)
    pixels = image * (height * width)
    skip = load_channels(skip_ptr, inputs.words, V.D)
    entering_ptr += ((image * 4 + COLUMNS) * chunks + chunk) * V.D
    states = load_channels(entering_ptr, inputs.words, V.D)
    entering = load_channels(entering_ptr + (2 * V.D) * chunks.to(tl.int64), inputs.words, V.D)
    outputs = Outputs(y_ptr + pixels * (V.D // 2), out_ptr + pixels * (V.D // 2), skip, entering)
    passed_ptr += (image * 2 + COLUMNS) * tl.cdiv(height * width, T) * V.D
    # by rows, float32 alone is short of registers, with or without edges
    BY_ROWS: tl.constexpr = tl.float32 != V.ELEMENT
    BY_COLUMNS: tl.constexpr = not V.EDGES or is_resident(V.RANK, V.ELEMENT)
    TOGETHER: tl.constexpr = BY_COLUMNS if COLUMNS else BY_ROWS
    present = tiles_present(inputs, chunk, tiles)
    if TOGETHER:
        directions = _load_directions(inputs, COLUMNS, V)
        walk = Walk(inputs, directions, outputs, passed_ptr)
        for j in range(0, present):
            states = _visit(_output_tile, walk, states, chunk * tiles + j, COLUMNS, V, COLUMNS == 1)
    else:
        for backward in tl.static_range(2):
            tl.debug_barrier()  # the same lanes read what they wrote to y forwards
            directions = _load_directions(inputs, COLUMNS, V)
            walk = Walk(inputs, directions, outputs, passed_ptr)
            for j in range(0, present):
                states = _visit_one(_output_tile, walk, states, chunk * tiles + j, backward, COLUMNS, V)
