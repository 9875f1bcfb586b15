"""When an MLP runs as one kernel, and with which tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.shared_memory import shared_limit_bytes


@dataclass(frozen=True)
class MlpTile:
    """The rows of one program, the hidden features of one step, and the launch options."""

    rows: int
    hidden: int
    warps: int
    stages: int
    """Buffers of the ring of each weight. One is being read while the others are filled."""
    registers: int
    """Most registers per thread; 128 lets two programs of eight warps share a multiprocessor."""

    def programs(self, rows: int) -> int:
        """Return the number of programs that cover all rows."""
        return -(-rows // self.rows)

    def options(self) -> dict[str, int | bool]:
        """Return the compile options of the kernel."""
        return {
            **FOUR_WARPS, "num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers,
        }  # fmt: skip


PIECES = {96: (64, 32), 128: (64, 64), 192: (128, 64), 256: (128, 128)}
"""Channels in two powers of two: Triton's tiles are powers of two, and 96 of 128 columns would waste a
quarter. Of a piece of a product's left side, all columns are in registers at once, so 128 are split too."""

CANDIDATES = {
    96: (
        MlpTile(128, 64, 8, 3, 128),
        MlpTile(64, 32, 4, 3, 128),
        MlpTile(128, 32, 8, 3, 128),
        MlpTile(64, 64, 4, 3, 128),
    ),
    128: (
        MlpTile(128, 64, 8, 2, 128),
        MlpTile(64, 32, 4, 3, 168),
        MlpTile(128, 32, 8, 4, 128),
        MlpTile(128, 64, 8, 3, 255),
    ),
    192: (
        MlpTile(128, 64, 8, 3, 255),
        MlpTile(64, 32, 4, 3, 255),
        MlpTile(128, 32, 8, 3, 255),
    ),
    256: (
        MlpTile(128, 64, 8, 2, 255),
        MlpTile(64, 32, 4, 2, 255),
        MlpTile(128, 32, 8, 3, 255),
    ),
}
"""Tiles by channels: first the default, second the one for few rows, then others to be timed. With Triton
3.6, none spills. Where registers are tight (128x64 and 64x64 of 96 channels, 128x64 in two stages and 128x32
of 128), ptxas waits for each instruction of a product before the next, so that other warps fill the gaps.

Weights are read once per program, so 128 rows halve that traffic, which is 704 FLOPs per byte then, and close
to the ratio of the tensor cores' rate to that of the L2 cache.
"""

SHARED_KB = {96: (73, 37, 49, 61), 128: (65, 49, 81, 97), 192: (145, 73, 97), 256: (129, 69, 129)}
"""The shared memory of a program with each candidate, as compiled for GPUs before Hopper. On Hopper it is
more, and every tile fits."""

ROWS_PER_CHANNEL = 32
"""Fewest rows per channel for one kernel. A program takes a time that grows with the channels, while two
kernels also spread the hidden features over the multiprocessors. With 64 rows per program, this is half as
many programs as an H200 has multiprocessors for 128 channels."""

FILLS = 132
"""Fewest programs with the default tile: one per multiprocessor of an H200."""


STEP = max(tile.hidden for tiles in CANDIDATES.values() for tile in tiles)
"""The hidden features must be a multiple of every tile's."""


def is_fused(rows: int, channels: int, hidden: int, dtype: torch.dtype) -> bool:
    """Return whether the MLP of x (rows, channels) runs as one kernel. float32, with products of three terms,
    and wider x do not fit into registers."""
    return (
        dtype in (torch.bfloat16, torch.float16)
        and channels in CANDIDATES
        and hidden % STEP == 0
        and rows >= ROWS_PER_CHANNEL * channels
    )


def tile_for(rows: int, channels: int, device: torch.device) -> MlpTile:
    """Return the tile for x (rows, channels): for many rows, the first whose programs fit on the device."""
    small = CANDIDATES[channels][1]
    room = shared_limit_bytes(device)
    for tile, shared_kb in zip(CANDIDATES[channels], SHARED_KB[channels], strict=True):
        if tile.rows > small.rows and shared_kb << 10 <= room and tile.programs(rows) >= FILLS:
            return tile
    return small
