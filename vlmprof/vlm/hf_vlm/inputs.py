"""The pixel layout of each architecture, for images that already have their size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.packed_encoder import PatchFormat

ONE_IMAGE_AXIS = ("idefics2", "idefics3", "smolvlm")
PACKED_PATCHES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def image_inputs(config: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the keyword arguments with which such a model takes images (batch, 3, height, width)."""
    if config.model_type in PACKED_PATCHES:
        vision = config.vision_config
        patches = PatchFormat(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        pixels, grid = patches.packed(images)
        return {"pixel_values": pixels, "image_grid_thw": grid}
    if config.model_type in ONE_IMAGE_AXIS:
        return {"pixel_values": images[:, None]}
    return {"pixel_values": images}


TOKEN_TYPES = {
    "qwen2_vl": "mm_token_type_ids",
    "qwen2_5_vl": "mm_token_type_ids",
    "qwen3_vl": "mm_token_type_ids",
    "gemma3": "token_type_ids",
    "paligemma": "token_type_ids",
}
"""The argument that marks the positions of an image, by architecture."""


def token_types(config: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return the argument that marks the positions of an image, for architectures that have one."""
    argument = TOKEN_TYPES.get(config.model_type)
    if argument is None:
        return {}
    if config.model_type == "paligemma":
        # 0 marks its bidirectional prefix, image and prompt alike
        return {argument: torch.zeros_like(ids)}
    return {argument: (ids == config.image_token_id).to(torch.int32)}
