"""How each architecture wants its pixels: what its processor makes of images that are already resized."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.packed_encoder import PatchFormat

ONE_IMAGE_AXIS = ("idefics2", "idefics3", "smolvlm")
PACKED_PATCHES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def image_inputs(config: Any, images: Tensor) -> dict[str, Tensor]:
    """The keyword arguments that carry images (batch, 3, height, width) into such a model."""
    if config.model_type in PACKED_PATCHES:
        vision = config.vision_config
        patches = PatchFormat(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        pixels, grid = patches.packed(images)
        return {"pixel_values": pixels, "image_grid_thw": grid}
    if config.model_type in ONE_IMAGE_AXIS:
        return {"pixel_values": images[:, None]}
    return {"pixel_values": images}


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
