"""The tiles of a matrix product: candidates, the rule that chooses among them, and tuned choices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlmprof.kernels.common.backends import FOUR_WARPS
from vlmprof.kernels.common.shared_memory import shared_limit_bytes
from vlmprof.kernels.common.tuning_cache import tuned_choice


@dataclass(frozen=True)
class Tile:
    """The part of the product that one program computes at a time, and the launch options."""

    rows: int
    columns: int
    depth: int
    """Input features per step, or 0 if the program keeps all features of its rows in shared memory."""
    warps: int
    stages: int
    """Buffers per operand that is loaded in steps: one is used while the others are being filled."""

    def label(self) -> str:
        """Return the tile's name for a line of a table."""
        depth = f"×{self.depth}" if self.depth else " kept"
        return f"{self.rows}×{self.columns}{depth}, {self.warps} warps"

    def row_blocks(self, rows: int) -> int:
        """Return the number of tiles that cover all rows."""
        return -(-rows // self.rows)

    def column_blocks(self, features: int) -> int:
        """Return the number of tiles that cover all output features."""
        return -(-features // self.columns)

    def programs(self, rows: int, features: int) -> int:
        """Return the number of tiles that cover all rows and output features."""
        return self.row_blocks(rows) * self.column_blocks(features)

    def options(self) -> dict[str, int | bool]:
        """Return the compile options of the kernel."""
        return {**FOUR_WARPS, "num_warps": self.warps, "num_stages": self.stages}


WIDE = Tile(64, 64, 32, 4, 3)
"""For four-byte inputs."""
SMALL = Tile(64, 64, 64, 4, 4)
"""For few programs, which wait for loads: deeper steps, and more of them in flight, reduce the waiting."""
LARGE = Tile(128, 128, 64, 8, 3)
"""Reads half as much per result. All stages fit into the shared memory of every GPU since Ampere."""
LARGEST = Tile(128, 256, 64, 8, 3)
"""Reads a quarter less per result than `LARGE`, but fills a multiprocessor alone. A residual or a norm whose
weight is not folded finds no registers."""

KEPT = Tile(128, 64, 0, 8, 2)
"""For many rows: each is read once, normalized once and multiplied by all columns of the weight."""
KEPT_NARROW = Tile(128, 32, 0, 8, 2)
"""Leaves room for another program on a multiprocessor, at half the operand reuse."""
KEPT_LOW = Tile(64, 32, 0, 4, 2)
"""Leaves room for two programs on a multiprocessor even with the longest rows: for short results."""
KEPT_FEW = Tile(64, 64, 0, 8, 2)
"""For few rows: all features of a row are loaded at once."""

KEPT_FEATURES = 384
"""Most input features of a row that is kept: 128 rows take 96 KB, and the columns of `KEPT` another 96."""

FILLING = 264
"""Fewest programs that keep a GPU busy: two per multiprocessor of an H200."""


@dataclass(frozen=True)
class Product:
    """The shape that a tile depends on: x (rows, depth) times a weight (features, depth)."""

    rows: int
    depth: int
    features: int
    normed: bool
    residual: bool
    dtype: torch.dtype

    def key(self) -> str:
        """Return its part of the key of a stored choice."""
        kind = str(self.dtype).removeprefix("torch.")
        op = ("norm_" if self.normed else "") + "linear" + (" residual" if self.residual else "")
        return f"{op} depth={self.depth} features={self.features} {kind} rows<2^{self.rows.bit_length()}"


def pieces(depth: int) -> tuple[int, int]:
    """Split the features of a kept row into two powers of two, the second perhaps 0, as products need."""
    first = max(16, 1 << (depth.bit_length() - 1))
    rest = depth - first
    return first, max(16, 1 << (rest - 1).bit_length()) if rest > 0 else 0


def candidates(product: Product, device: torch.device) -> tuple[Tile, ...]:
    """Return the tiles to try for a product. Those whose operands or results do not fit are left out."""
    if product.dtype.itemsize > 2:
        return (WIDE,)
    if product.depth <= KEPT_FEATURES:
        room = shared_limit_bytes(device)
        kept = (KEPT, KEPT_NARROW, KEPT_LOW, KEPT_FEW)
        return (*(tile for tile in kept if shared_bytes(tile, product.depth) <= room), LARGE, SMALL)
    roomy = is_roomy(product) and ring_bytes(LARGEST) <= shared_limit_bytes(device)
    return (LARGE, SMALL, LARGEST) if roomy else (LARGE, SMALL)


def is_roomy(product: Product) -> bool:
    """Return whether a product leaves `LARGEST` the registers that it needs, and has rows enough for it."""
    return not product.residual and 4 * LARGEST.row_blocks(product.rows) >= FILLING


def ring_bytes(tile: Tile) -> int:
    """Return the shared memory that the loads in flight of a tile with steps take in 16 bits."""
    return 2 * tile.stages * tile.depth * (tile.rows + tile.columns)


def shared_bytes(tile: Tile, depth: int) -> int:
    """Return the shared memory that a program with kept rows takes in 16 bits: operands and results."""
    operands = sum(pieces(depth)) * (tile.rows + tile.stages * tile.columns)
    return 2 * (operands + tile.rows * tile.columns)


def tile_for(product: Product, device: torch.device) -> Tile:
    """Return the tile that was tuned for a product on a device, or that the rule chooses."""
    offered = candidates(product, device)
    number = tuned_choice(product, device)
    if number is not None and number <= len(offered):
        return offered[number - 1]
    chosen = by_rule(product)
    return chosen if chosen in offered else offered[-1]


def by_rule(product: Product) -> Tile:
    """Return the tile for a product that was not tuned: the one that was best, or within 9 % of it, for most
    products of VMamba-T and -B at 1024² and 4096² on an H200 (reports/kernels.md). Keeping rows pays for the
    norm alone, and only up to 256 features."""
    if product.dtype.itemsize > 2:
        return WIDE
    rows, depth, features = product.rows, product.depth, product.features
    if product.normed and depth <= 256 and 4 * KEPT.row_blocks(rows) < FILLING:
        return KEPT_FEW
    if product.normed and depth <= 128:
        return KEPT_NARROW  # memory is the limit: the more programs load and store at once, the better
    if product.normed and depth < 256:
        return KEPT if features > 128 else KEPT_LOW
    if product.normed and depth == 256 and features > 256:
        return KEPT_FEW
    if depth <= KEPT_FEATURES and product.normed:
        return SMALL
    if product.normed and is_roomy(product) and LARGEST.programs(rows, features) >= FILLING:
        return LARGEST
    wasted = features > LARGE.columns and -features % LARGE.columns > features // 4
    return LARGE if LARGE.programs(rows, features) >= FILLING and not wasted else SMALL


def column_blocks_per_program(product: Product, tile: Tile) -> int:
    """Return how many tiles beside each other a program computes.

    As many as leave enough programs: each reads its rows, or sums them for a norm, once.
    """
    if tile.depth and not product.normed:
        return 1
    blocks = tile.column_blocks(product.features)
    programs = -(-FILLING // max(1, tile.row_blocks(product.rows)))
    return -(-blocks // min(blocks, programs))
