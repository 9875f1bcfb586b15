"""The inputs that a VLM's own processor makes of photos, and the facts that they show."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlmprof.errors import UserError
from vlmprof.vlm.hf_vlm.architectures import architecture, first_side, vision_config
from vlmprof.vlm.hf_vlm.placeholder_tokenizer import WORD
from vlmprof.vlm.hf_vlm.processors import OwnProcessor, token_id

PIXELS = ("pixel_values", "pixel_values_images", "flattened_patches", "image_patches")
GRIDS = (
    "image_grid_thw", "image_grid_hws", "grid_thws", "spatial_shapes", "target_sizes", "image_grid_hw"
)  # fmt: skip
CROPS = "pixel_values_local"
"""Crops of the picture in `pixel_values`, which the encoder gets in a second call."""

LARGEST_PX = 2**30
"""Pixels of the largest image that a processor is let make; each takes several bytes."""


@dataclass(frozen=True)
class PhotoFacts:
    """What a processor makes of one photo."""

    visual_tokens: int | None
    """The number of placeholders; None if there are none, because the language model cross-attends."""
    sequence_tokens: int | None
    """All tokens of the language model: placeholders, marks around tiles, the prompt."""
    tiles: int | None
    """The number of pictures that the encoder gets."""
    encoder_size: tuple[int, int] | None
    """(height, width) in pixels of such a picture, of the largest if they differ."""


class PhotoInputs:
    """Makes the inputs of a model, with one photo and the same words in each text."""

    def __init__(self, own: OwnProcessor, config: Any, prompt_tokens: int, dtype: torch.dtype) -> None:
        self._own = own
        self._config = config
        self._known = architecture(config.model_type)
        self._dtype = dtype
        model: Any = AutoModelForImageTextToText._model_mapping[type(config)]
        self._types = "mm_token_type_ids" in inspect.signature(model.forward).parameters
        words = f" {WORD}" * prompt_tokens
        self._text = self._known.text.format(
            image=(own.image_token or "") * self._known.repeated, words=words
        )

    def __call__(self, photos: list[Image.Image], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Return the inputs on `device`. Raises what the processor raises."""
        images = [[photo] for photo in photos] if self._known.nested else photos
        asked = {"return_mm_token_type_ids": True} if self._types else {}
        made = self._own.processor(
            images=images, text=[self._text] * len(photos), return_tensors="pt", **asked
        )
        inputs = {name: _on(value, device, self._dtype) for name, value in made.items() if name != "labels"}
        return self._known.completed(inputs, self._config)

    def facts(self, inputs: dict[str, Any], batch_size: int = 1) -> PhotoFacts:
        """Return what `inputs` contain for each photo."""
        ids = inputs.get("input_ids")
        tiles, size = _tiles(inputs, self._config)
        placeholders = None
        if ids is not None and (image_id := self._image_id()) is not None:
            placeholders = int((ids == image_id).sum()) // batch_size or None
        return PhotoFacts(
            placeholders, None if ids is None else ids.shape[-1],
            None if tiles is None else tiles // batch_size, size,
        )  # fmt: skip

    def _image_id(self) -> int | None:
        """Return the id of a placeholder: the configuration's, or else the processor's."""
        if not self._known.image_id:
            return None
        number = token_id(self._config, self._known.image_id)
        return number if number is not None else getattr(self._own.processor, "image_token_id", None)


def check_enlarged(name: str, own: OwnProcessor, size: tuple[int, int]) -> None:
    """Raise `UserError` for a photo so narrow that its processor would enlarge it beyond memory, before it
    crops it."""
    wanted = getattr(own.processor.image_processor, "size", None)
    wanted = {name: side for name, side in dict(wanted or {}).items() if side is not None}
    if set(wanted) != {"shortest_edge"}:
        return
    scale = wanted["shortest_edge"] / min(size)
    height, width = (round(side * scale) for side in size)
    if height * width > LARGEST_PX:
        raise UserError(
            f"vlm {name!r} does not accept a photo of {size[1]}x{size[0]}: "
            f"its processor would resize it to {width}x{height}"
        )


def _on(value: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return [_on(inner, device, dtype) for inner in value]
    return value


def _tiles(inputs: dict[str, Any], config: Any) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of pictures that the encoder gets, and the size of the largest."""
    patch = first_side(getattr(vision_config(config), "patch_size", None))
    for name in GRIDS:
        grid = inputs.get(name)
        if isinstance(grid, Tensor) and isinstance(patch, int):
            rows, columns = (int(grid[..., axis].max()) * patch for axis in (-2, -1))
            return grid.reshape(-1, grid.shape[-1]).shape[0], (rows, columns)
    for name in PIXELS:
        pixels = inputs.get(name)
        if isinstance(pixels, Tensor) and pixels.ndim >= 4 and pixels.shape[-3] == 3:
            crops = inputs.get(CROPS)
            count = pixels[..., 0, 0, 0].numel() + (len(crops) if isinstance(crops, Tensor) else 0)
            return count, (pixels.shape[-2], pixels.shape[-1])
    return _tiles_of_patches(inputs)


def _tiles_of_patches(inputs: dict[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Return the same for pictures (pictures, patches, channels × side²)."""
    patches, places = inputs.get("pixel_values"), inputs.get("image_position_ids")
    if (rows := inputs.get("flattened_patches")) is not None:
        # beside its pixels, a patch has its row and column from 1; 0 is padding
        patches, places = rows[..., 2:], rows[..., [1, 0]].long() - 1
    if not isinstance(patches, Tensor) or patches.ndim != 3:
        return None, None
    side = math.isqrt(patches.shape[-1] // 3)
    if isinstance(places, Tensor):
        width, height = ((int(places[..., axis].max()) + 1) * side for axis in (0, 1))
        return len(patches), (height, width)
    grid = math.isqrt(patches.shape[1])
    return (len(patches), (grid * side, grid * side)) if grid**2 == patches.shape[1] else (None, None)
