"""SS2D as one matrix product and four kernels: the `triton` backend.

    x (pixels, D) ── x_proj ──> blocks (pixels, 4, KW)                      one matrix product
    summary: each chunk's sum of steps and end state from 0                 reads x and blocks
    carry:   the state that enters each chunk                               small
    output:  y by rows, then by columns, both directions at once            reads x and blocks, adds to y

No tensor of four directions × D channels per pixel is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.launcher import ALIGNMENT_BYTES, Launcher
from vlmprof.kernels.common.parameter_cache import cached_from_parameters
from vlmprof.kernels.common.tuning_cache import Shape, tuned_choice
from vlmprof.kernels.ss2d import many_states, single_state
from vlmprof.kernels.ss2d.carry import carry_kernel
from vlmprof.kernels.ss2d.chunks import CHANNELS, POSITIONS, chunk_count, tiles_per_chunk
from vlmprof.kernels.ss2d.packing import Packed, pack
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.ss2d.steps import is_resident
from vlmprof.kernels.ss2d.tile import Variant

ELEMENTS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
WORDS = {torch.bfloat16: torch.int32, torch.float16: torch.int32, torch.float32: torch.int64}

COMPILE_OPTIONS = {"num_warps": 1, "num_stages": 1, "maxnreg": 255, "enable_fp_fusion": True}
"""One warp per program. By default, the assembler limits some kernels to 168 registers, and they spill."""

TWELVE_WARPS = {**COMPILE_OPTIONS, "maxnreg": 168}
"""For kernels that fit in so few registers without a spill: 12 programs per multiprocessor instead of 8."""

FEW_CHUNKS, FEW_CHUNKS_STATES = 32, 32
"""Chunks per step of the carry, and states per program, for sequences of up to that many chunks."""

MANY_CHUNKS, MANY_CHUNKS_STATES = 128, 16
"""The same for longer sequences: four times as many chunks at once need fewer steps."""


@dataclass(frozen=True)
class Launch:
    """The launch parameters of the kernels."""

    tiles: int
    """Tiles of `POSITIONS` positions per chunk."""
    chosen_by: str
    """`tuning`, or `rule` if this shape was not tuned on this device."""


def launch_for(
    shape: torch.Size, dt_rank: int, d_state: int, dtype: torch.dtype, device: torch.device
) -> Launch:
    """Return the launch parameters of `ss2d` for x of this shape (batch, height, width, d_inner)."""
    batch, height, width, d_inner = shape
    tuned = tuned_choice(Shape(d_inner, dt_rank, d_state, dtype, batch * height * width), device)
    if tuned is not None:
        return Launch(tuned, "tuning")
    return Launch(tiles_per_chunk(height * width, d_inner, batch), "rule")


def ss2d_fused(x: Tensor, parameters: Parameters, tiles: int | None = None) -> Tensor:
    """Compute `ss2d` for x (batch, height, width, d_inner) on a GPU, with `tiles` per chunk or tuned ones.

    bfloat16, float16 or float32, with float32 states; raises TypeError for float64.
    """
    if x.dtype not in ELEMENTS:
        raise TypeError(
            f"ss2d: backend 'triton' takes bfloat16, float16 or float32, got {x.dtype}; "
            "backend 'torch' takes float64"
        )
    packed = cached_from_parameters(pack, x.dtype, *parameters)
    if tiles is None:
        tiles = launch_for(x.shape, parameters.dt_rank, parameters.d_state, x.dtype, x.device).tiles
    d_inner = x.shape[3]
    channels = d_inner + d_inner % 2
    if channels != d_inner:
        x = torch.nn.functional.pad(x, (0, 1))
    x = x.contiguous()
    if x.data_ptr() % ALIGNMENT_BYTES:
        x = x.clone()
    blocks = torch.nn.functional.linear(x, packed.x_proj)
    out = torch.empty_like(x)
    _launch(x, blocks, out, packed, tiles)
    return out if channels == d_inner else out[..., :d_inner].contiguous()


def _launch(x: Tensor, blocks: Tensor, out: Tensor, packed: Packed, tiles: int) -> None:
    batch, height, width, channels = x.shape
    d_state = packed.a2.shape[1]
    chunks = chunk_count(height * width, tiles)
    word = WORDS[x.dtype]
    lost = x.new_empty(batch, 4, chunks, channels, dtype=torch.float32)
    ends = x.new_empty(batch, 4, chunks, d_state * channels, dtype=torch.float32)
    entering = torch.empty_like(ends)
    passed: tuple[Tensor, ...] = ()
    if d_state == 1:
        all_tiles = chunk_count(height * width, 1)
        passed = (x.new_empty(batch, 2, all_tiles, 2, channels // 2, dtype=torch.int64),)
    y = out if x.dtype == torch.float32 else torch.empty_like(x, dtype=torch.float32)

    inputs = (x.view(word), blocks, blocks.view(word), packed.dt_weight, packed.dt_bias, packed.a2)
    results = (packed.skip, entering, *passed, y.view(torch.int64), out.view(word))
    sizes = (height, width, chunks, tiles)
    summaries, outputs = _launchers(
        channels, d_state, packed.block, packed.rank, x.dtype, height < POSITIONS,
        height * width % POSITIONS != 0, height % POSITIONS != 0,
    )  # fmt: skip
    carry, elements = _carry_launcher(channels, d_state, chunks > FEW_CHUNKS)
    channel_blocks = -(-channels // CHANNELS)
    sequences = (2 if d_state == 1 else 1) * batch
    for summarise in summaries:
        summarise((chunks, channel_blocks, sequences), *inputs, lost, ends, *passed, *sizes)
    grid = (-(-d_state * channels // elements), 4 * batch, 1)
    carry(grid, lost, ends, packed.a2, entering, chunks)
    for put_out in outputs:
        put_out((chunks, channel_blocks, batch), *inputs, *results, *sizes)


def compile_options(kernel: Any, V: Variant, COLUMNS: int = 0, **_: Any) -> dict[str, Any]:
    """Return the compile options of a summary or output kernel."""
    small = V.N == 1 and not V.EDGES and is_resident(V.RANK, V.ELEMENT)
    return TWELVE_WARPS if small and not COLUMNS else COMPILE_OPTIONS


@lru_cache(maxsize=1024)
def _launchers(
    channels: int, d_state: int, block: int, rank: int, dtype: torch.dtype, few_rows: bool,
    edges_by_rows: bool, edges_by_columns: bool,
) -> tuple[list[Launcher], list[Launcher]]:  # fmt: skip
    """Return the launchers of the summary and of the output, in launch order.

    For d_state 1, the summary is one launch, and the output one by rows and one by columns; otherwise both
    are one per direction. `few_rows`: fewer rows than positions in a tile; `edges`: tiles may cross edges.
    """
    variant = Variant(channels, block, d_state, rank, ELEMENTS[dtype], few_rows, edges_by_columns)

    def launcher(kernel: Any, **constants: Any) -> Launcher:
        return Launcher(kernel, constants, compile_options(kernel, **constants))

    if d_state > 1:
        summary, output = (
            [launcher(kernel, K=k, V=variant) for k in range(4)]
            for kernel in (many_states.summary_kernel, many_states.output_kernel)
        )
        return summary, output
    by_rows = replace(variant, FEW_ROWS=False, EDGES=edges_by_rows)
    return [launcher(single_state.summary_kernel, V=variant)], [
        launcher(single_state.output_kernel, COLUMNS=0, V=by_rows),
        launcher(single_state.output_kernel, COLUMNS=1, V=variant),
    ]


@lru_cache(maxsize=1024)
def _carry_launcher(channels: int, d_state: int, many_chunks: bool) -> tuple[Launcher, int]:
    """Return the launcher and the number of states per program."""
    few, many = (FEW_CHUNKS, FEW_CHUNKS_STATES), (MANY_CHUNKS, MANY_CHUNKS_STATES)
    chunks, elements = many if many_chunks else few
    constants = {"D": channels, "N": d_state, "CHUNKS": chunks, "ELEMENTS": elements}
    return Launcher(carry_kernel, constants, FOUR_WARPS), elements
