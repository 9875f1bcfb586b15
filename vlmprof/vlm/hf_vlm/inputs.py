"""How each architecture wants its pixels: what its processor makes of images that are already resized."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ONE_IMAGE_AXIS = ("idefics2", "idefics3", "smolvlm")
PACKED_PATCHES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def image_inputs(config: Any, images: Tensor) -> dict[str, Tensor]:
    """The keyword arguments that carry images (batch, 3, height, width) into such a model."""
    if config.model_type in PACKED_PATCHES:
        return _packed_patches(config.vision_config, images)
    if config.model_type in ONE_IMAGE_AXIS:
        return {"pixel_values": images[:, None]}
    return {"pixel_values": images}


def _packed_patches(vision: Any, images: Tensor) -> dict[str, Tensor]:
    """All patches of all images in one axis, in squares of `spatial_merge_size`, each patch as channels,
    frames (a still image is repeated), rows and columns."""
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    batch, _, height, width = images.shape
    rows, columns = height // patch, width // patch
    squares = images.unflatten(2, (rows // merge, merge, patch))
    squares = squares.unflatten(5, (columns // merge, merge, patch))
    squares = squares.permute(0, 2, 5, 3, 6, 1, 4, 7)
    squares = squares.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    grid = torch.tensor([[1, rows, columns]], device=images.device).expand(batch, 3)
    return {"pixel_values": squares.reshape(batch * rows * columns, -1), "image_grid_thw": grid}


BIDIRECTIONAL_PREFIX = ("paligemma",)
"""Architectures whose token type 0 is the bidirectional prefix, image and prompt alike."""
TOKEN_TYPES = {
    "qwen2_vl": "mm_token_type_ids",
    "qwen2_5_vl": "mm_token_type_ids",
    "qwen3_vl": "mm_token_type_ids",
    "gemma3": "token_type_ids",
    "paligemma": "token_type_ids",
}
"""By architecture, the argument that says which positions hold an image."""


def token_types(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Which positions hold an image, for architectures that ask."""
    argument = TOKEN_TYPES.get(config.model_type)
    if argument is None:
        return {}
    if config.model_type in BIDIRECTIONAL_PREFIX:
        return {argument: torch.zeros_like(ids)}
    return {argument: (ids == config.image_token_id).to(torch.int32)}
