"""Partitioning of a sequence into chunks of tiles, in plain numbers, for launching or counting."""

from __future__ import annotations

POSITIONS = 16
"""Positions per tile, T in the kernels: the smallest number of rows of a tensor-core product."""

CHANNELS = 64
"""Channels per program: two per lane."""

MOST_TILES = 8
"""Tiles per chunk if there are enough chunks to fill a GPU."""

ENOUGH_PROGRAMS = 2048
"""Approximate number of warps that a large GPU runs at once, given the registers of these kernels."""


def tiles_per_chunk(positions: int, channels: int, batch: int) -> int:
    """Return the tiles per chunk: as many as leave enough programs, because fewer chunks need less carry."""
    tiles = -(-positions // POSITIONS)
    programs = tiles * -(-channels // CHANNELS) * batch
    return max(1, min(MOST_TILES, programs // ENOUGH_PROGRAMS))


def chunk_count(positions: int, tiles: int) -> int:
    """Return the number of chunks of `tiles` tiles that cover a sequence."""
    return -(-positions // (tiles * POSITIONS))
