"""Tiles of photos: grids, tokens and their order against transformers' own processors and model."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaNextConfig
from transformers.image_utils import SizeDict
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, image_size_to_num_patches
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.vlm.connector_catalog import facts
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.tiled import PreprocessTiles, TiledConnector, cut
from vlmprof.vlm.tiling import Tiling, grids
from vlmprof.vlm.workload import Workload

LLAVA_NEXT = Tiling("anyres", 336, 4)
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Of the released checkpoints, in their order: (height, width) in pixels."""


def photo_sizes(number: int, seed: int) -> list[tuple[int, int]]:
    """(height, width) in pixels from 20 to 3000, square ones and multiples of tiles among them."""
    draw = random.Random(seed)
    sizes = [(draw.randint(20, 3000), draw.randint(20, 3000)) for _ in range(number - 40)]
    sides = [draw.randint(20, 3000) for _ in range(20)]
    squares = [(side, side) for side in sides]
    return [*sizes, *squares, *((336 * a, 448 * b) for a in range(1, 5) for b in range(1, 6))]


class Processor:
    """What `LlavaNextProcessor` knows of its model, without a tokenizer."""

    patch_size = 14
    num_additional_image_tokens = 0
    _get_unpadded_features = LlavaNextProcessor._get_unpadded_features

    def __init__(self, pinpoints: list[list[int]]) -> None:
        self.image_processor = LlavaNextImageProcessorPil(image_grid_pinpoints=pinpoints)

    def tokens(self, height: int, width: int) -> int:
        features: Any = LlavaNextProcessor._get_number_of_features
        found: int = features(self, height, width, 336, 336)
        return found


@pytest.mark.parametrize("max_tiles", [4, 3, 6, 9])
def test_anyres_is_llava_nexts(max_tiles: int) -> None:
    tiling = Tiling("anyres", 336, max_tiles)
    pinpoints = PINPOINTS if max_tiles == 4 else [[336 * r, 336 * c] for r, c in grids("anyres", max_tiles)]
    assert sorted(pinpoints) == sorted([336 * r, 336 * c] for r, c in grids("anyres", max_tiles))
    processor = Processor(pinpoints)
    for height, width in photo_sizes(500, seed=max_tiles):
        assert tiling.tiles(height, width) == image_size_to_num_patches((height, width), pinpoints, 336)
        tokens = tiling.visual_tokens(height, width, facts("mlp2"), (24, 24))
        assert tokens == processor.tokens(height, width), (height, width)


@pytest.mark.parametrize("max_tiles", [12, 1, 6, 7])
def test_dynamic_is_internvls(max_tiles: int) -> None:
    tiling = Tiling("dynamic", 448, max_tiles)
    size = {"height": 448, "width": 448}
    processor = GotOcr2ImageProcessorPil(
        crop_to_patches=True, min_patches=1, max_patches=max_tiles, size=size
    )
    for height, width in photo_sizes(500, seed=max_tiles):
        tiles = processor.get_number_of_image_patches(height, width)
        assert tiling.tiles(height, width) == tiles
        tokens = tiling.visual_tokens(height, width, facts("pixel-shuffle2"), (32, 32))
        assert tokens == tiles * 256


PHOTOS = [(300, 700), (700, 300), (500, 500), (97, 211), (1000, 331)]
"""(height, width) in pixels."""


def photo(height: int, width: int) -> Image.Image:
    values = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(height))
    return Image.fromarray(values.to(torch.uint8).numpy())


@pytest.mark.parametrize("size", PHOTOS)
def test_tiles_show_what_the_processors_tiles_show(size: tuple[int, int]) -> None:
    """To the pixel, in tiles of 96 × 96."""
    pixels = np.asarray(photo(*size)).transpose(2, 0, 1)
    bicubic = Image.Resampling.BICUBIC
    anyres = cut(photo(*size), Tiling("anyres", 96, 4))
    pinpoints = [[side * 96 // 336 for side in pair] for pair in PINPOINTS]
    processor: Any = LlavaNextImageProcessorPil()
    theirs = processor.get_image_patches(pixels, pinpoints, (96, 96), 96, bicubic)
    np.testing.assert_array_equal([np.asarray(tile).transpose(2, 0, 1) for tile in anyres], theirs)
    dynamic = cut(photo(*size), Tiling("dynamic", 96, 6))
    cropping: Any = GotOcr2ImageProcessorPil()
    side = SizeDict(height=96, width=96)
    theirs = cropping.crop_image_to_patches(pixels, 1, 6, patch_size=side, resample=bicubic)
    np.testing.assert_array_equal([np.asarray(tile).transpose(2, 0, 1) for tile in dynamic], theirs)


class Doubled(nn.Module):
    """A connector that keeps the order of tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * tokens


@pytest.mark.parametrize("size", PHOTOS)
def test_tokens_are_packed_as_in_llava_next(size: tuple[int, int]) -> None:
    """Tiles of 6 × 6 tokens, two equal photos."""
    tiling = Tiling("anyres", 84, 4)
    pinpoints = [[side // 4 for side in pair] for pair in PINPOINTS]
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 84, "patch_size": 14},
        image_grid_pinpoints=pinpoints,
    )
    newline = torch.randn(8)
    tiles = torch.randn(2 * tiling.tiles(*size), 36, 8)
    ours = TiledConnector(Doubled(), tiling, size, (6, 6), newline)(tiles)

    class Model:
        pass

    model: Any = Model()
    model.config = config
    pack: Any = LlavaNextModel.pack_image_features
    features = [2 * photo for photo in tiles.unflatten(0, (2, -1))]
    theirs, _ = pack(model, features, torch.tensor([size, size]), "default", newline)
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=0)
    assert ours.shape[1] == tiling.visual_tokens(*size, facts("mlp2"), (6, 6))


def test_tokens_of_dynamic_tiles_follow_each_other() -> None:
    tiles = torch.randn(2 * 7, 4, 8)
    ours = TiledConnector(Doubled(), Tiling("dynamic", 28, 6), (200, 300), None, torch.zeros(8))(tiles)
    assert torch.equal(ours, 2 * tiles.reshape(2, 28, 8))


@pytest.mark.parametrize(
    ("tiling", "connector", "words"),
    [
        (Tiling("anyres", 336, 2), "mlp2", "tiling anyres needs max_tiles of at least 3, not 2"),
        (LLAVA_NEXT, "resampler-64", "those of resampler-64 have no order; use dynamic"),
    ],
)
def test_what_cannot_be_tiled_is_refused(tiling: Tiling, connector: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiling.visual_tokens(500, 500, facts(connector), (24, 24))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tiling", "connector", "photo", "tiles"),
    [
        (Tiling("anyres", 64, 4), "mlp2", (100, 250), 4),
        (Tiling("anyres", 64, 4), "pool2", (200, 100), 3),
        (Tiling("anyres", 64, 4), "c-abstractor", (97, 101), 5),
        (Tiling("dynamic", 64, 6), "pixel-shuffle2", (128, 192), 7),
        (Tiling("dynamic", 64, 6), "resampler-64", (80, 80), 1),
    ],
)
def test_what_is_counted_is_what_runs(
    tiling: Tiling, connector: str, photo: tuple[int, int], tiles: int
) -> None:
    workload = Workload(
        "vit-t", "llama-23m", *photo, connector=connector, batch_size=2, tiling=tiling, dtype="float32"
    )
    cost = count(workload)
    one = Workload("vit-t", "llama-23m", 64, 64, connector=connector, batch_size=2 * tiles, dtype="float32")
    alone = count(one)
    assert cost.stages["vision"] == alone.stages["vision"]
    assert cost.stages["connector"].matrix_flops == alone.stages["connector"].matrix_flops
    vlm = create_vlm(workload)
    images = PreprocessTiles(None, *photo, tiling, batch_size=2)()
    assert images.shape == (2 * tiles, 3, 64, 64)
    embeddings = vlm.project(vlm.encode_image(images))
    assert embeddings.shape == (2, cost.visual_tokens, 384)
    assert cost.visual_tokens == tiling.visual_tokens(*photo, facts(connector), (4, 4))
    assert vlm.weight_bytes() == {name: stage.weight_bytes for name, stage in cost.stages.items()}
    assert cost.stages["prefill"].input_bytes == embeddings.nbytes
