"""Stage `preprocess`: read an image file, decode, resize or letterbox, normalise, copy to the device."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmprof.errors import unknown
from vlmprof.settings import Fit
from vlmprof.vlm.image_file import read_rgb, read_rgb_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BORDER = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""Letterbox bars: the mean colour, zero after normalising."""
GENERATED_SIZE = (640, 480)
"""(width, height) in pixels of the picture that stands in when no file is given."""


class Preprocess:
    """Called once per iteration; does all of its work, from the file's bytes on, every time.

    `fit` is `resize` (both sides to the target, the aspect ratio let go), `letterbox` (the aspect ratio kept,
    bars in the mean colour on both sides) or `pad` (resized to `inner`, (height, width), bars in the mean
    colour below and to the right). Raises `UserError` here, not in the timed call, for an image that
    cannot be read.
    """

    def __init__(
        self,
        image: Path | None,
        height: int,
        width: int,
        *,
        fit: Fit = "resize",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 1,
        seed: int = 0,
        inner: tuple[int, int] | None = None,
    ) -> None:
        if fit not in get_args(Fit):
            raise unknown("fit", fit, get_args(Fit))
        self.height = height
        self.width = width
        self.fit = fit
        self.inner = inner or (height, width)
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size = batch_size
        self._path = image
        self._generated = b"" if image else generated_jpeg(seed)
        self._scale = torch.tensor([1 / (255 * std) for std in IMAGENET_STD]).view(3, 1, 1)
        self._shift = torch.tensor(
            [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        ).view(3, 1, 1)
        self._decode()

    def __call__(self) -> Tensor:
        """Normalised images on the device: (batch, 3, height, width), every image of the batch decoded."""
        images = torch.stack([
            self._normalised(picture) for _ in range(self.batch_size) for picture in self._pictures()
        ])  # fmt: skip
        return images.to(self.device, self.dtype)

    def _pictures(self) -> list[Image.Image]:
        return [fitted(self._decode(), (self.height, self.width), self.fit, self.inner)]

    def _normalised(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)

    def _decode(self) -> Image.Image:
        return read_rgb_file(self._path) if self._path else read_rgb(self._generated, "that was generated")


def fitted(
    picture: Image.Image, size: tuple[int, int], fit: Fit, inner: tuple[int, int] | None = None
) -> Image.Image:
    """A picture brought to `size` (height, width) in pixels, as `Preprocess` says."""
    height, width = size
    if fit == "resize":
        return picture.resize((width, height), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (width, height), BORDER)
    if fit == "pad":
        canvas.paste(picture.resize((inner or size)[::-1], Image.Resampling.BICUBIC))
        return canvas
    scale = min(width / picture.width, height / picture.height)
    within = (
        min(width, max(1, round(picture.width * scale))),
        min(height, max(1, round(picture.height * scale))),
    )
    corner = ((width - within[0]) // 2, (height - within[1]) // 2)
    canvas.paste(picture.resize(within, Image.Resampling.BICUBIC), corner)
    return canvas


def generated_jpeg(seed: int) -> bytes:
    """A seeded picture, smooth colours under noise, as JPEG bytes: what a camera's file costs to decode."""
    rng = np.random.default_rng(seed)
    width, height = GENERATED_SIZE
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = smooth + rng.normal(0, 8, smooth.shape)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
