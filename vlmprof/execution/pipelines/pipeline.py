"""The pipeline type, and the source of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmprof.fields import resolution_size
from vlmprof.measure.timeline import Stage, StageGroup
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.preprocess import Preprocess
from vlmprof.vlm.tiled import PreprocessTiles
from vlmprof.vlm.tiling import Tiling


@dataclass(frozen=True)
class Pipeline:
    """The stages of one cell, built and joined."""

    stages: tuple[Stage | StageGroup, ...]
    first_input: Any
    """The images, if preprocessing is not a stage of the iteration."""
    vision: nn.Module
    weight_bytes: Mapping[str, int]
    """Weight bytes by stage."""
    backends: Mapping[str, str]
    """The implementation used for each replaceable part, such as `{"ss2d": "torch"}`."""
    visual_tokens: int | None = None
    """The number of visual tokens, if only the built model knows it."""
    encoder_tokens: int | None = None
    tiles: int | None = None
    encoder_size: tuple[int, int] | None = None
    """What a VLM's own processor and its encoder make of an image; (height, width) in pixels of a tile."""
    warnings: tuple[str, ...] = ()
    """Deviations from the cell's axes."""


def image_source(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Preprocess:
    """Return the source of a cell's images; `size` is (height, width) in pixels after padding, of a photo
    if that is tiled. Each frame of a video is an image: decoded, fitted and normalised by itself."""
    image = Path(settings.image) if settings.image else None
    dtype = torch.float32 if settings.autocast else getattr(torch, axes.dtype)
    tiling, pictures = Tiling.of(axes), axes.batch_size * axes.frames
    if tiling is not None:
        return PreprocessTiles(
            image, *size, tiling, device=device, dtype=dtype, batch_size=pictures, seed=settings.seed
        )
    return Preprocess(
        image, height=size[0], width=size[1], fit=settings.fit, device=device,
        dtype=dtype, batch_size=pictures, seed=settings.seed,
        inner=resolution_size(axes.resolution),
    )  # fmt: skip
