"""Photos cut into tiles: how many tiles, of which grid, and the visual tokens that they become. No torch.

anyres, as LLaVA-NeXT (its authors' blog of January 2024; released models in transformers): the photo keeps
its aspect ratio, in the grid of tiles that shows most of it; one more tile shows it whole. Tokens of the
borders are dropped, and a learned token ends each row.
dynamic, as InternVL 1.5 (arXiv 2404.16821): the photo is stretched to the grid whose aspect ratio is nearest;
if that has several tiles, one more shows it whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from vlmprof.errors import UserError
from vlmprof.settings import Axes, TilingKind
from vlmprof.vlm.connector_catalog import ConnectorFacts, Grid

AUTO_TILES: dict[TilingKind, tuple[int, int]] = {"anyres": (336, 4), "dynamic": (448, 12)}
"""Side of a tile in pixels and most tiles of LLaVA-NeXT's checkpoints and of InternVL's."""
LEAST_ANYRES = 3
"""Fewest tiles with which anyres has a choice of grids."""


@dataclass(frozen=True)
class Tiling:
    """How photos are cut into square tiles."""

    kind: TilingKind
    tile_px: int
    max_tiles: int
    """Most tiles of a photo, without the one of the whole photo."""

    @classmethod
    def of(cls, axes: Axes) -> Tiling | None:
        """Return the tiling of a cell; None if images are encoded in one piece."""
        return None if axes.tiling == "none" else cls(axes.tiling, axes.tile_px, axes.max_tiles)

    def check(self, connector: ConnectorFacts) -> None:
        """Raise `UserError` for too few tiles, and for a connector whose tokens cannot be put in rows."""
        if self.kind != "anyres":
            return
        if self.max_tiles < LEAST_ANYRES:
            raise UserError(f"tiling anyres needs max_tiles of at least {LEAST_ANYRES}, not {self.max_tiles}")
        if connector.visual_grid((connector.merged, connector.merged)) is None:
            raise UserError(
                f"tiling anyres puts tokens in rows, but those of {connector.name} have no order; use dynamic"
            )

    def grid(self, height_px: int, width_px: int) -> Grid:
        """Return the rows and columns of tiles of a photo."""
        return _chosen(self, height_px, width_px)

    def tiles(self, height_px: int, width_px: int) -> int:
        """Return the pictures that the encoder is given of a photo."""
        rows, columns = self.grid(height_px, width_px)
        return rows * columns + (self.kind == "anyres" or rows * columns > 1)

    def kept(self, height_px: int, width_px: int, tile: Grid) -> tuple[slice, slice]:
        """Return the rows and columns of a photo's tokens without its borders, for tiles of `tile` tokens."""
        rows, columns = self.grid(height_px, width_px)
        height, width = rows * tile[0], columns * tile[1]
        borders = [0, 0]
        if width_px / height_px > width / height:
            borders[0] = (height - int(round(height_px * (width / width_px), 7))) // 2
        else:
            borders[1] = (width - int(round(width_px * (height / height_px), 7))) // 2
        return slice(borders[0], height - borders[0]), slice(borders[1], width - borders[1])

    def visual_tokens(self, height_px: int, width_px: int, connector: ConnectorFacts, encoded: Grid) -> int:
        """Return the visual tokens of a photo whose tiles have the grid `encoded` of encoder tokens.

        Raises `UserError` as `check`, and for a grid that cannot be merged.
        """
        self.check(connector)
        of_a_tile = connector.visual_tokens(encoded)
        if self.kind == "dynamic":
            return self.tiles(height_px, width_px) * of_a_tile
        tile = connector.visual_grid(encoded)
        assert tile is not None
        rows, columns = self.kept(height_px, width_px, tile)
        return of_a_tile + (rows.stop - rows.start) * (columns.stop - columns.start + 1)


@lru_cache(maxsize=64)
def grids(kind: TilingKind, max_tiles: int) -> tuple[Grid, ...]:
    """Return the grids of tiles to choose from, small ones first.

    For anyres these are grids of at least two tiles, and fewer than `max_tiles` in a row or column: with 4,
    the five of LLaVA-NeXT's checkpoints.
    """
    sides = range(1, max_tiles + 1)
    found = [(rows, columns) for columns in sides for rows in sides if rows * columns <= max_tiles]
    if kind == "anyres":
        found = [grid for grid in found if grid != (1, 1) and max(grid) < max_tiles]
        return tuple(sorted(found, key=lambda grid: (grid[0] * grid[1], grid[0])))
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


@lru_cache(maxsize=4096)
def _chosen(tiling: Tiling, height_px: int, width_px: int) -> Grid:
    if tiling.kind == "anyres":
        choices = grids("anyres", tiling.max_tiles)
        return max(choices, key=lambda grid: _shown(grid, tiling.tile_px, height_px, width_px))
    chosen, least = (1, 1), math.inf
    for rows, columns in grids("dynamic", tiling.max_tiles):
        distance = abs(width_px / height_px - columns / rows)
        # of equally near grids, the largest that is less than twice the photo
        below_twice = 0.5 * tiling.tile_px**2 * rows * columns < height_px * width_px
        if distance < least or (distance == least and below_twice):
            chosen, least = (rows, columns), distance
    return chosen


def _shown(grid: Grid, tile_px: int, height_px: int, width_px: int) -> tuple[int, int]:
    """How much of a photo a grid shows, in pixels, and minus the pixels that it leaves empty."""
    height, width = (side * tile_px for side in grid)
    scale = min(width / width_px, height / height_px)
    shown = min(int(width_px * scale) * int(height_px * scale), height_px * width_px)
    return shown, shown - height * width
