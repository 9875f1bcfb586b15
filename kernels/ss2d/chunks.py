"""Partitioning of a sequence into chunks of tiles, in plain numbers, for launching or counting."""

from __future__ import annotations

POSITIONS = 16
"""Positions per tile, T in the kernels: the smallest number of rows of a tensor-core product."""

CHANNELS = 64
"""Channels per program: two per lane."""

MOST_TILES = 8
"""Most tiles per chunk without tuning."""

ENOUGH_PROGRAMS = 1056
"""Programs of the output pass that a large GPU runs at once: eight on each of 132 multiprocessors."""

CHUNK_OVERHEAD = 1
"""Time that a chunk takes apart from its tiles, weights and carry included, in tiles."""


def tiles_per_chunk(positions: int, channels: int, batch: int) -> int:
    """Return the tiles per chunk with which the GPU should finish first: programs run in waves, and the last
    of them should not be almost empty."""
    programs = -(-channels // CHANNELS) * batch

    def duration(tiles: int) -> int:
        waves = -(-chunk_count(positions, tiles) * programs // ENOUGH_PROGRAMS)
        return waves * (tiles + CHUNK_OVERHEAD)

    return min(range(MOST_TILES, 0, -1), key=duration)


def chunk_count(positions: int, tiles: int) -> int:
    """Return the number of chunks of `tiles` tiles that cover a sequence."""
    return -(-positions // (tiles * POSITIONS))
