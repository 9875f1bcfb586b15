"""What tiles add to the connector and to the stage `preprocess`."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from vlmprof.vlm.connector_catalog import Grid
from vlmprof.vlm.image_file import read_rgb
from vlmprof.vlm.preprocess import Preprocess, fitted
from vlmprof.vlm.tiling import Tiling


class TiledConnector(nn.Module):
    """A connector of tiles, and what joins their tokens to those of a photo.

    `photo` is (height, width) in pixels; `tile` has the rows and columns of visual tokens of a tile, None if
    they have no order.
    """

    def __init__(
        self, connector: nn.Module, tiling: Tiling, photo: tuple[int, int], tile: Grid | None, newline: Tensor
    ) -> None:
        super().__init__()
        self.connector = connector
        self.tiles = tiling.tiles(*photo)
        self.joined = tiling.kind == "anyres"
        if self.joined:
            assert tile is not None
            self.tile = tile
            self.grid = tiling.grid(*photo)
            self.kept = tiling.kept(*photo, tile)
            self.newline = nn.Parameter(newline, requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(photos · tiles, encoder tokens, channels) to (photos, visual tokens, hidden_size)."""
        tiles = self.connector(tokens).unflatten(0, (-1, self.tiles))
        return self._in_rows(tiles) if self.joined else tiles.flatten(1, 2)

    def _in_rows(self, tiles: Tensor) -> Tensor:
        """The tokens of the whole photo, then row by row those of the other tiles, without borders."""
        blocks = tiles[:, 1:].unflatten(2, self.tile).unflatten(1, self.grid)
        # (photos, rows of tiles, rows, columns of tiles, columns, channels)
        image = blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, *self.kept]
        newline = self.newline.expand(*image.shape[:2], 1, -1)
        rows = torch.cat((image, newline), dim=2).flatten(1, 2)
        return torch.cat((tiles[:, 0], rows), dim=1)


class PreprocessTiles(Preprocess):
    """`Preprocess` of a photo, which is decoded and cut into tiles every time.

    The photo is `image`, or a generated one, at (height, width) in pixels, as a JPEG file in memory.
    """

    def __init__(
        self,
        image: Path | None,
        height: int,
        width: int,
        tiling: Tiling,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(image, height, width, device=device, dtype=dtype, batch_size=batch_size, seed=seed)
        self.tiling = tiling
        photo = io.BytesIO()
        fitted(self._decode(), (height, width), "resize").save(photo, "JPEG", quality=90)
        self._path, self._generated = None, photo.getvalue()

    def _pictures(self) -> list[Image.Image]:
        return cut(read_rgb(self._generated, "that was made of the photo"), self.tiling)


def cut(photo: Image.Image, tiling: Tiling) -> list[Image.Image]:
    """Return the tiles of a photo, row by row, with the whole photo first (anyres) or last (dynamic)."""
    rows, columns = tiling.grid(photo.height, photo.width)
    side = tiling.tile_px
    width, height = columns * side, rows * side
    whole = photo.resize((side, side), Image.Resampling.BICUBIC)
    if tiling.kind == "dynamic":
        canvas = photo.resize((width, height), Image.Resampling.BICUBIC)
    else:
        scale = min(width / photo.width, height / photo.height)
        within = (
            min(math.ceil(photo.width * scale), width),
            min(math.ceil(photo.height * scale), height),
        )
        canvas = Image.new("RGB", (width, height))
        corner = ((width - within[0]) // 2, (height - within[1]) // 2)
        canvas.paste(photo.resize(within, Image.Resampling.BICUBIC), corner)
    tiles = [
        canvas.crop((x, y, x + side, y + side)) for y in range(0, height, side) for x in range(0, width, side)
    ]
    if tiling.kind == "anyres":
        return [whole, *tiles]
    return [*tiles, whole] if len(tiles) > 1 else tiles
