"""Selective scan as three kernels over chunks: the `triton` backend, for Mamba's (batch, d, L) layout.

    summary: each chunk's sum of steps and end states from 0     grid (chunks, channel blocks, batch)
    carry:   the states that enter each chunk                    small
    output:  y                                                   grid (chunks, channel blocks, batch)

A program walks a chunk in tiles of channels × positions. Positions run along the contiguous dimension and are
scanned across lanes. The states are processed one after the other, so any d_state fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.common.backends import FOUR_WARPS, LOG2_E
from vlmprof.kernels.common.device_math import exp2_fast, scan_along, softplus
from vlmprof.kernels.common.launcher import Launcher
from vlmprof.kernels.selective_scan.arguments import ScanArguments

CHUNKS, ELEMENTS = 32, 32
"""Chunks and states per step of the carry: a tile with eight elements for each thread of four
warps."""


@dataclass(frozen=True)
class Variant:
    """The compile-time constants of the scan."""

    N: int
    """d_state."""
    SOFTPLUS: bool
    """Whether to apply softplus to delta."""
    CHUNK: int = 256
    """Positions per chunk: four tiles, so that the carry is small."""
    TILE: int = 64
    """Positions per tile: two for each lane of a warp."""
    CHANNELS: int = 16
    """Channels per program: with 64 positions, eight elements for each thread of four warps."""


@triton.jit
def _load_steps(delta_ptr, offsets, bias, inside, SOFTPLUS: tl.constexpr):
    """Step sizes of a tile, (CHANNELS, TILE) float32, 0 outside the sequence; bias: (CHANNELS,)."""
    steps = tl.load(delta_ptr + offsets, mask=inside, other=0.0).to(tl.float32) + bias[:, None]
    if SOFTPLUS:
        steps = softplus(steps, True)
    return tl.where(inside, steps, 0.0)


@triton.jit(do_not_specialize=["length", "chunks", "d_inner", "groups"])
def scan_kernel(
    u_ptr, delta_ptr, a_ptr, b_ptr, c_ptr, skip_ptr, bias_ptr, sum_ptr, state_ptr, y_ptr,
    length, chunks, d_inner, groups, OUTPUT: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """One chunk of CHANNELS channels. With OUTPUT, `state` (batch, chunks, N, d) holds what enters the
    chunk and y is written; without, the chunk's end states from 0 and its sums of steps are written.

    u, delta, y: (batch, d, L). a: (N, d), A · log2(e). b, c: (batch, groups, N, L).
    """
    CHANNELS: tl.constexpr = V.CHANNELS
    TILE: tl.constexpr = V.TILE
    N: tl.constexpr = V.N
    chunk = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # (CHANNELS,)
    real = channel < d_inner
    base = image * d_inner * length
    rows = channel.to(tl.int64)[:, None] * length  # (CHANNELS, 1)
    per_group = d_inner // groups
    group_rows = (image * groups + channel // per_group).to(tl.int64)[:, None] * N * length  # (CHANNELS, 1)
    states = state_ptr + (image * chunks + chunk) * N * d_inner
    bias = tl.load(bias_ptr + channel, mask=real, other=0.0)  # (CHANNELS,)
    skip = tl.load(skip_ptr + channel, mask=real, other=0.0)  # (CHANNELS,)
    total = tl.zeros([CHANNELS], tl.float32)
    i = tl.arange(0, TILE)
    for start in range(0, V.CHUNK, TILE):
        position = chunk * V.CHUNK + start + i  # (TILE,)
        inside = real[:, None] & (position < length)[None, :]
        at = base + rows + position[None, :]  # (CHANNELS, TILE)
        u = tl.load(u_ptr + at, mask=inside, other=0.0).to(tl.float32)  # (CHANNELS, TILE)
        steps = _load_steps(delta_ptr, at, bias, inside, V.SOFTPLUS)  # (CHANNELS, TILE)
        driven = steps * u
        y = u * skip[:, None]
        for n in range(0, N):
            a2 = tl.load(a_ptr + n * d_inner + channel, mask=real, other=0.0)  # (CHANNELS,)
            at_group = group_rows + n * length + position[None, :]
            B = tl.load(b_ptr + at_group, mask=inside, other=0.0).to(tl.float32)  # (CHANNELS, TILE)
            state = tl.load(states + n * d_inner + channel, mask=real, other=0.0)  # (CHANNELS,)
            if not OUTPUT:
                state = tl.where(start == 0, 0.0, state)
            # (CHANNELS, TILE) each
            decay, scanned = scan_along(exp2_fast(steps * a2[:, None]), driven * B, 1, TILE)
            scanned += decay * state[:, None]
            last = tl.sum(tl.where(i[None, :] == TILE - 1, scanned, 0.0), 1)  # (CHANNELS,)
            tl.store(states + n * d_inner + channel, last, mask=real)
            if OUTPUT:
                C = tl.load(c_ptr + at_group, mask=inside, other=0.0).to(tl.float32)  # (CHANNELS, TILE)
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
    """From each chunk's end states to the states that enter it, (batch, chunks, N · d).

    Grid (blocks of ELEMENTS among N · d, batch). sum: (batch, chunks, d). state: (batch, chunks, N · d).
    """
    element = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)  # (ELEMENTS,)
    total = N * d_inner
    real = element < total
    sequence = tl.program_id(1).to(tl.int64) * chunks
    a2 = tl.load(a_ptr + element, mask=real, other=0.0)  # (ELEMENTS,)
    i = tl.arange(0, CHUNKS)
    state = tl.zeros([ELEMENTS], tl.float32)
    tl.store(entering_ptr + sequence * total + element, state, mask=real)
    for done in range(0, chunks, CHUNKS):
        chunk = (sequence + done + i)[:, None]  # (CHUNKS, 1)
        there = (done + i < chunks)[:, None] & real[None, :]
        # (CHUNKS, ELEMENTS) from here on
        steps = tl.load(sum_ptr + chunk * d_inner + (element % d_inner)[None, :], mask=there, other=0.0)
        ends = tl.load(state_ptr + chunk * total + element[None, :], mask=there, other=0.0)
        decay, drive = scan_along(exp2_fast(a2[None, :] * steps), ends, 0, CHUNKS)
        leaving = decay * state[None, :] + drive
        followed = (done + i + 1 < chunks)[:, None] & real[None, :]
        tl.store(entering_ptr + (chunk + 1) * total + element[None, :], leaving, mask=followed)
        state = tl.sum(tl.where(i[:, None] == CHUNKS - 1, leaving, 0.0), 0)  # (ELEMENTS,)


def selective_scan_fused(u: Tensor, scan: ScanArguments) -> Tensor:
    """Compute `selective_scan`: u (batch, d_inner, L) on a GPU -> the same shape and dtype.

    bfloat16, float16 or float32, with float32 states; raises TypeError for float64.
    """
    delta, A, B, C, D, delta_bias, delta_softplus = scan
    if u.dtype == torch.float64:
        raise TypeError("selective_scan: backend 'triton' computes in float32; backend 'torch' takes float64")
    batch, d_inner, length = u.shape
    groups, d_state = B.shape[1:3]
    chunks = -(-length // Variant.CHUNK)
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
    grid = (chunks, -(-d_inner // Variant.CHANNELS), batch)
    summarise(grid, *inputs, ends, y, *sizes)
    carry((-(-d_state * d_inner // ELEMENTS), batch, 1), sums, ends, a2, entering, chunks, d_inner)
    output(grid, *inputs, entering, y, *sizes)
    return y


@lru_cache(maxsize=256)
def _launchers(d_state: int, softplus: bool) -> tuple[Launcher, Launcher, Launcher]:
    """Return the launchers of summary, carry and output."""
    variant = Variant(d_state, softplus)
    carry = {"N": d_state, "CHUNKS": CHUNKS, "ELEMENTS": ELEMENTS}
    return (
        Launcher(scan_kernel, {"OUTPUT": False, "V": variant}, FOUR_WARPS),
        Launcher(carry_kernel, carry, FOUR_WARPS),
        Launcher(scan_kernel, {"OUTPUT": True, "V": variant}, FOUR_WARPS),
    )
