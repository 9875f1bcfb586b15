"""Addresses at 8192 pixels, computed without allocation: bases need 64 bits, offsets in a tile 32."""

from __future__ import annotations

import pytest
import torch

from vlmprof.kernels.ss2d.chunks import MOST_TILES, POSITIONS, chunk_count, tiles_per_chunk
from vlmprof.kernels.ss2d.packing import block_shape

INT32 = 2**31

LEVELS = ((2048, 192, 6), (1024, 384, 12), (512, 768, 24), (256, 1536, 48), (2048, 256, 8))
"""Side, d_inner and dt_rank of VMamba-T's levels at 8192 pixels, and of VMamba-B's first."""


@pytest.mark.parametrize(("side", "d_inner", "dt_rank"), LEVELS)
def test_offsets_inside_a_tile_fit_32_bits(side: int, d_inner: int, dt_rank: int) -> None:
    block, _ = block_shape(dt_rank, 1, torch.bfloat16)
    widest = max(d_inner // 2, 4 * block)
    # by columns, interior: the last position of a tile is 15 image rows below the first
    assert (POSITIONS - 1) * side * widest + widest < INT32
    # over an edge, the next column starts height − 1 rows above
    assert side * side * widest < INT32


def test_a_whole_image_does_not_fit_32_bits() -> None:
    side, d_inner = 2048, 192
    assert 4 * d_inner * side * side > INT32
    assert 4 * side * side * d_inner * 2 > INT32


@pytest.mark.parametrize("positions", [1, 49, 196, 3136, 65536, 2048 * 2048])
@pytest.mark.parametrize("channels", [8, 192, 1536])
def test_chunks_cover_the_sequence(positions: int, channels: int) -> None:
    tiles = tiles_per_chunk(positions, channels, 1)
    assert 1 <= tiles <= MOST_TILES
    chunks = chunk_count(positions, tiles)
    assert (chunks - 1) * tiles * POSITIONS < positions <= chunks * tiles * POSITIONS


@pytest.mark.parametrize("dt_rank", [1, 6, 8, 15, 16, 24, 32, 33, 48, 64, 80])
@pytest.mark.parametrize("d_state", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_product_reads_all_steps_and_little_more(dt_rank: int, d_state: int, dtype: torch.dtype) -> None:
    block, rank = block_shape(dt_rank, d_state, dtype)
    assert block % 8 == 0
    assert block - 2 * d_state >= dt_rank  # B and C, at the block's end, leave room for the steps
    assert rank % 16 == 0
    if dt_rank > (32 if dtype == torch.float32 else 64):
        assert dt_rank <= rank < dt_rank + 16
    else:
        assert rank & (rank - 1) == 0
        assert dt_rank <= rank < 2 * max(dt_rank, 9)
