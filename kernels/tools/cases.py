"""The cases for verifying operations: small ones that cover every known fault, and larger ones.

Small cases are as small as their fault allows, because Triton's interpreter takes seconds for a few
tiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d
from vlmprof.kernels.tools.block_cases import large_block_cases, medium_block_cases, small_block_cases
from vlmprof.kernels.tools.case import Case, Draw, Inputs, case_of


@case_of(ss2d)
def ss2d_case(
    draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int, int], dt_rank: int, d_state: int,
    dt_offset: float | None = None, strided: bool = False,
) -> Inputs:  # fmt: skip
    """Draw SS2D on x (batch, height, width, d_inner) with parameters initialized as in VMamba.

    With `dt_offset`, steps before softplus are ± that value for any input; `strided` makes x a view with
    non-contiguous channels.
    """
    d_inner = shape[3]
    x = draw(*shape[:3], 2 * d_inner).to(dtype)[..., ::2] if strided else draw(*shape)
    dt_weight = draw(4, d_inner, dt_rank) * dt_rank**-0.5
    dt_bias = draw(4, d_inner) * 1.5 - 3.0
    if dt_offset is not None:
        dt_weight = dt_weight * 0.0
        dt_bias = dt_bias.sign() * dt_offset
    decay = torch.arange(1, d_state + 1, device=x.device, dtype=torch.float32).log()
    return (
        x.to(dtype),
        (draw(4, dt_rank + 2 * d_state, d_inner) * d_inner**-0.5).to(dtype),
        dt_weight.to(dtype),
        dt_bias,
        decay.repeat(4 * d_inner, 1) + 0.1 * draw(4 * d_inner, d_state),
        draw(4 * d_inner),
    ), {}


@case_of(selective_scan)
def selective_scan_case(
    draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int], groups: int, d_state: int,
    delta_scale: float = 1.0,
) -> Inputs:  # fmt: skip
    """Draw a selective scan of u (batch, d_inner, L) with every optional argument."""
    batch, d_inner, length = shape
    return (
        draw(*shape).to(dtype),
        (draw(*shape) * delta_scale).to(dtype),
        -draw(d_inner, d_state).exp(),
        draw(batch, groups, d_state, length).to(dtype),
        draw(batch, groups, d_state, length).to(dtype),
        draw(d_inner),
        draw(d_inner) - 1.0,
    ), {"delta_softplus": True}


@case_of(cross_scan)
def cross_scan_case(draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> Inputs:
    """Draw a cross-scan of x (batch, d_inner, height, width)."""
    return (draw(*shape).to(dtype),), {}


@case_of(cross_merge)
def cross_merge_case(draw: Draw, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> Inputs:
    """Draw a cross-merge to (batch, d_inner, height, width)."""
    batch, d_inner, height, width = shape
    ys = draw(batch, 4, d_inner, height * width).to(dtype)
    return (ys,), {"height": height, "width": width}


def small_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield square, odd, prime, one-row, one-column, multi-chunk, extreme, strided and batched cases."""
    yield ss2d_case("square", dtype, device, (1, 5, 5, 4), 2, 1)
    yield ss2d_case("prime, odd channels, batch 3", dtype, device, (3, 3, 7, 5), 3, 1)
    yield ss2d_case("whole tiles", dtype, device, (1, 16, 2, 4), 2, 1)
    yield ss2d_case("whole tiles by rows alone, rank 16", dtype, device, (1, 4, 4, 4), 16, 1)
    yield ss2d_case("tall, two channel blocks", dtype, device, (1, 17, 2, 66), 6, 1)
    yield ss2d_case("one row", dtype, device, (1, 1, 19, 4), 2, 1)
    yield ss2d_case("one column", dtype, device, (1, 19, 1, 4), 2, 1)
    yield ss2d_case("one pixel", dtype, device, (1, 1, 1, 4), 1, 1)
    yield ss2d_case("rank 35, strided", dtype, device, (1, 3, 7, 6), 35, 1, strided=True)
    yield ss2d_case("steps of ±50", dtype, device, (1, 17, 2, 4), 2, 1, dt_offset=50.0)
    yield ss2d_case("d_state 3", dtype, device, (1, 2, 9, 4), 2, 3)
    yield ss2d_case("d_state 16", dtype, device, (1, 2, 9, 2), 2, 16)
    yield ss2d_case("d_state 16, steps of ±50", dtype, device, (1, 1, 5, 2), 2, 16, dt_offset=50.0)
    yield selective_scan_case("two groups", dtype, device, (2, 12, 37), 2, 4)
    yield selective_scan_case("longer than a chunk", dtype, device, (1, 5, 601), 1, 1)
    yield selective_scan_case("d_state 16", dtype, device, (1, 6, 9), 1, 16)
    yield selective_scan_case("steps of ±50", dtype, device, (1, 6, 70), 1, 2, delta_scale=50.0)
    yield cross_scan_case("7 × 41", dtype, device, (2, 3, 7, 41))
    yield cross_merge_case("7 × 41", dtype, device, (2, 3, 7, 41))
    yield from small_block_cases(dtype, device)


def medium_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with several chunks and channel blocks: fast except in the interpreter."""
    yield from medium_block_cases(dtype, device)
    yield ss2d_case("37 × 41", dtype, device, (1, 37, 41, 10), 3, 1)
    yield ss2d_case("23 × 5, batch 3, odd channels", dtype, device, (3, 23, 5, 131), 6, 1)
    yield ss2d_case("32 × 21, rank 24", dtype, device, (1, 32, 21, 70), 24, 1)
    yield ss2d_case("one row of 331", dtype, device, (1, 1, 331, 8), 2, 1)
    yield ss2d_case("19 × 29, steps of ±50", dtype, device, (1, 19, 29, 8), 2, 1, dt_offset=50.0)
    yield ss2d_case("13 × 17, d_state 16", dtype, device, (1, 13, 17, 12), 2, 16)
    yield selective_scan_case("1031 steps, d_state 16", dtype, device, (1, 6, 1031), 2, 16)


def large_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield cases with the shapes of VMamba's levels, for a GPU. The scans come last, because their
    references take a step per pixel, and seconds to minutes on a slow host."""
    yield from large_block_cases(dtype, device)
    for level, (d_inner, dt_rank) in enumerate(((192, 6), (384, 12), (768, 24), (1536, 48))):
        side = 96 >> level
        yield ss2d_case(f"level {level + 1}", dtype, device, (2, side, side, d_inner), dt_rank, 1)
    yield ss2d_case("VMamba-B, level 3", dtype, device, (2, 24, 24, 1024), 32, 1)
    yield ss2d_case("97 × 131", dtype, device, (1, 97, 131, 192), 6, 1)
    yield ss2d_case("131 × 257, several tiles per chunk", dtype, device, (1, 131, 257, 192), 6, 1)
    yield ss2d_case("128 × 160, no edges, batch 2", dtype, device, (2, 128, 160, 384), 12, 1)
    yield ss2d_case("56 × 56, d_state 16", dtype, device, (1, 56, 56, 192), 6, 16)
    yield selective_scan_case("VMamba level 1", dtype, device, (1, 768, 3136), 4, 1)
