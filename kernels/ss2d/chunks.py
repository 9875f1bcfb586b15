"""How the kernels cut a sequence into chunks of tiles: plain numbers, for a launch or for counting one."""

from __future__ import annotations

POSITIONS = 16
"""Positions per tile, T in the kernels: the least number of rows of a tensor-core product."""

CHANNELS = 64
"""Channels per program: two for each of 32 lanes."""

MOST_TILES = 8
"""Tiles per chunk where there are enough chunks to fill a GPU."""

ENOUGH_PROGRAMS = 2048
"""About the warps that a large GPU holds at once with these kernels' registers."""


def tiles_per_chunk(positions: int, channels: int, batch: int) -> int:
    """Tiles per chunk: as many as leave enough programs, since fewer chunks mean less to carry."""
    tiles = -(-positions // POSITIONS)
    programs = tiles * -(-channels // CHANNELS) * batch
    return max(1, min(MOST_TILES, programs // ENOUGH_PROGRAMS))


def chunk_count(positions: int, tiles: int) -> int:
    """Chunks of so many tiles that cover a sequence."""
    return -(-positions // (tiles * POSITIONS))
