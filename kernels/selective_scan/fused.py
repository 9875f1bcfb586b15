"""Selective scan as three kernels over chunks: the `triton` backend, for Mamba's (batch, d, L) layout.

    summary: each chunk's sum of steps and end states from 0     grid (chunks, channel blocks, batch)
    carry:   the states that enter each chunk                    small
    output:  y                                                   grid (chunks, channel blocks, batch)

A program walks a chunk in tiles of channels × positions, positions running along the memory's fast
dimension and scanned across lanes. The states are taken one after the other, so any d_state fits.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.common.backends import FOUR_WARPS, LOG2_E
from vlmprof.kernels.common.device_math import exp2_fast, scan_columns, scan_rows, softplus
from vlmprof.kernels.common.launcher import Launcher

CHUNK = 256
"""Positions per chunk."""

TILE = 64
"""Positions per tile."""

CHANNELS = 16
"""Channels per program."""

CHUNKS, ELEMENTS = 32, 32
"""Chunks that are carried at once, for so many states."""


@triton.jit
def _steps(delta_ptr, offsets, bias, inside, SOFTPLUS: tl.constexpr):
    """Step sizes of a tile in float32, 0 outside the sequence."""
    steps = tl.load(delta_ptr + offsets, mask=inside, other=0.0).to(tl.float32) + bias[:, None]
    if SOFTPLUS:
        steps = softplus(steps, True)
    return tl.where(inside, steps, 0.0)


@triton.jit(do_not_specialize=["length", "chunks", "d_inner", "groups"])
def scan_kernel(
    u_ptr, delta_ptr, a_ptr, b_ptr, c_ptr, skip_ptr, bias_ptr, sum_ptr, state_ptr, y_ptr,
    length, chunks, d_inner, groups,
    N: tl.constexpr, SOFTPLUS: tl.constexpr, OUTPUT: tl.constexpr,
    CHUNK: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One chunk of CHANNELS channels. With OUTPUT, `state` (batch, chunks, N, d) holds what enters the
    chunk and y is written; without, the chunk's end states from 0 and its sums of steps are written.

    u, delta, y: (batch, d, L). a: (N, d), A · log2(e). b, c: (batch, groups, N, L).
    """
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < d_inner
    base = image * d_inner * length
    rows = channel.to(tl.int64)[:, None] * length
    per_group = d_inner // groups
    group_rows = (image * groups + channel // per_group).to(tl.int64)[:, None] * N * length
    states = state_ptr + (image * chunks + chunk) * N * d_inner
    bias = tl.load(bias_ptr + channel, mask=real, other=0.0)
    skip = tl.load(skip_ptr + channel, mask=real, other=0.0)
    total = tl.zeros([CHANNELS], tl.float32)
    i = tl.arange(0, TILE)
    for start in range(0, CHUNK, TILE):
        position = chunk * CHUNK + start + i
        inside = real[:, None] & (position < length)[None, :]
        at = base + rows + position[None, :]
        u = tl.load(u_ptr + at, mask=inside, other=0.0).to(tl.float32)
        steps = _steps(delta_ptr, at, bias, inside, SOFTPLUS)
        driven = steps * u
        y = u * skip[:, None]
        for n in range(0, N):
            a2 = tl.load(a_ptr + n * d_inner + channel, mask=real, other=0.0)
            at_group = group_rows + n * length + position[None, :]
            B = tl.load(b_ptr + at_group, mask=inside, other=0.0).to(tl.float32)
            state = tl.load(states + n * d_inner + channel, mask=real, other=0.0)
            if not OUTPUT:
                state = tl.where(start == 0, 0.0, state)
            decay, scanned = scan_columns(exp2_fast(steps * a2[:, None]), driven * B, TILE)
            scanned += decay * state[:, None]
            last = tl.sum(tl.where(i[None, :] == TILE - 1, scanned, 0.0), 1)
            tl.store(states + n * d_inner + channel, last, mask=real)
            if OUTPUT:
                C = tl.load(c_ptr + at_group, mask=inside, other=0.0).to(tl.float32)
                y += scanned * C
        tl.debug_barrier()
        if OUTPUT:
            tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
        else:
            total += tl.sum(steps, 1)
    if not OUTPUT:
        tl.store(sum_ptr + (image * chunks + chunk) * d_inner + channel, total, mask=real)


@triton.jit(do_not_specialize=["chunks", "d_inner"])
def carry_kernel(
    sum_ptr, state_ptr, a_ptr, entering_ptr, chunks, d_inner,
    N: tl.constexpr, CHUNKS: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """From each chunk's end states to what enters it, (batch, chunks, N · d). Grid (N · d blocks, batch)."""
    element = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)
    total = N * d_inner
    real = element < total
    sequence = tl.program_id(1).to(tl.int64) * chunks
    a2 = tl.load(a_ptr + element, mask=real, other=0.0)
    i = tl.arange(0, CHUNKS)
    state = tl.zeros([ELEMENTS], tl.float32)
    tl.store(entering_ptr + sequence * total + element, state, mask=real)
    for done in range(0, chunks, CHUNKS):
        chunk = (sequence + done + i)[:, None]
        there = (done + i < chunks)[:, None] & real[None, :]
        steps = tl.load(sum_ptr + chunk * d_inner + (element % d_inner)[None, :], mask=there, other=0.0)
        ends = tl.load(state_ptr + chunk * total + element[None, :], mask=there, other=0.0)
        decay, drive = scan_rows(exp2_fast(a2[None, :] * steps), ends, CHUNKS)
        leaving = decay * state[None, :] + drive
        followed = (done + i + 1 < chunks)[:, None] & real[None, :]
        tl.store(entering_ptr + (chunk + 1) * total + element[None, :], leaving, mask=followed)
        state = tl.sum(tl.where(i[:, None] == CHUNKS - 1, leaving, 0.0), 0)


def selective_scan_fused(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Shapes as in `selective_scan`, with B and C already (batch, groups, d_state, L).

    Raises TypeError for float64.
    """
    if u.dtype == torch.float64:
        raise TypeError("selective_scan: backend 'triton' computes in float32; backend 'torch' takes float64")
    batch, d_inner, length = u.shape
    groups, d_state = B.shape[1:3]
    chunks = -(-length // CHUNK)
    a2 = (A.float() * LOG2_E).t().contiguous()
    zeros = a2.new_zeros(d_inner)
    skip = zeros if D is None else D.float().contiguous()
    bias = zeros if delta_bias is None else delta_bias.float().contiguous()
    sums = a2.new_empty(batch, chunks, d_inner)
    ends = a2.new_empty(batch, chunks, d_state, d_inner)
    entering = torch.empty_like(ends)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)

    inputs = (u.contiguous(), delta.contiguous(), a2, B.contiguous(), C.contiguous(), skip, bias, sums)
    sizes = (length, chunks, d_inner, groups)
    summarise, carry, output = _launchers(d_state, delta_softplus)
    grid = (chunks, -(-d_inner // CHANNELS), batch)
    summarise(grid, *inputs, ends, y, *sizes)
    carry((-(-d_state * d_inner // ELEMENTS), batch, 1), sums, ends, a2, entering, chunks, d_inner)
    output(grid, *inputs, entering, y, *sizes)
    return y


@lru_cache(maxsize=256)
def _launchers(d_state: int, softplus: bool) -> tuple[Launcher, Launcher, Launcher]:
    """Summary, carry and output."""
    constants = {"N": d_state, "SOFTPLUS": softplus, "CHUNK": CHUNK, "TILE": TILE, "CHANNELS": CHANNELS}
    chain = {"N": d_state, "CHUNKS": CHUNKS, "ELEMENTS": ELEMENTS}
    return (
        Launcher(scan_kernel, constants | {"OUTPUT": False}, FOUR_WARPS),
        Launcher(carry_kernel, chain, FOUR_WARPS),
        Launcher(scan_kernel, constants | {"OUTPUT": True}, FOUR_WARPS),
    )
