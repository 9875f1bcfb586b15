"""The carry between the passes: from each chunk's decay and end state to the state that enters it."""

from __future__ import annotations

import triton
import triton.language as tl

from vlmprof.kernels.common.device_math import exp2_fast, scan_along


@triton.jit(do_not_specialize=["chunks"])
def carry_kernel(
    sum_ptr, end_ptr, a_ptr, entering_ptr, chunks,
    D: tl.constexpr, N: tl.constexpr, CHUNKS: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """Exclusive scan over chunks in scan order, grid (N · D / ELEMENTS, 4 · batch).

    sum: (batch, 4, chunks, D), the sums of steps; if N is 1, the decays themselves.
    end, entering: (batch, 4, chunks, N · D), state by state. a: (4, N · D), A · log2(e).
    Directions 2 and 3 run from the last chunk to the first.
    """
    direction = tl.program_id(1) % 4
    element = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)  # (ELEMENTS,)
    inside = element < N * D
    a2 = tl.load(a_ptr + direction * (N * D) + element, mask=inside, other=0.0)  # (ELEMENTS,)
    sequence = tl.program_id(1).to(tl.int64) * chunks
    sum_ptr += sequence * D
    end_ptr += sequence * (N * D)
    entering_ptr += sequence * (N * D)
    backward = direction >= 2

    i = tl.arange(0, CHUNKS)
    state = tl.zeros([ELEMENTS], tl.float32)
    for done in range(0, chunks, CHUNKS):
        order = done + i
        chunk = tl.where(backward, chunks - 1 - order, order).to(tl.int64)  # (CHUNKS,)
        there = (order < chunks)[:, None] & inside[None, :]
        # (CHUNKS, ELEMENTS) from here on
        steps = tl.load(sum_ptr + chunk[:, None] * D + (element % D)[None, :], mask=there, other=0.0)
        ends = tl.load(end_ptr + chunk[:, None] * (N * D) + element[None, :], mask=there, other=0.0)
        decays = exp2_fast(a2[None, :] * steps) if N > 1 else steps
        decay, drive = scan_along(decays, ends, 0, CHUNKS)
        leaving = decay * state[None, :] + drive
        following = tl.where(backward, chunk - 1, chunk + 1)
        followed = (order + 1 < chunks)[:, None] & inside[None, :]
        tl.store(entering_ptr + following[:, None] * (N * D) + element[None, :], leaving, mask=followed)
        state = tl.sum(tl.where(i[:, None] == CHUNKS - 1, leaving, 0.0), 0)  # (ELEMENTS,)
    first = tl.where(backward, chunks - 1, 0).to(tl.int64)
    tl.store(entering_ptr + first * (N * D) + element, tl.zeros([ELEMENTS], tl.float32), mask=inside)
