"""An image file as a viewer shows it: upright, on white, in eight bits of RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from vlmprof.errors import UserError
from vlmprof.files import read_bytes

TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Grayscale in more than eight bits per pixel; Pillow would clip them at 255."""


def read_rgb(data: bytes, name: str) -> Image.Image:
    """Decode the first frame of an image file to RGB.

    Raises `UserError` with `name` in one line if Pillow cannot decode it.
    """
    try:
        return _as_shown(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as problem:
        raise UserError(f"image {name} cannot be read: Pillow knows no such format") from problem
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, ImageCms.PyCMSError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise UserError(f"image {name} cannot be read: {reason}") from problem


def read_rgb_file(path: Path) -> Image.Image:
    """As `read_rgb`, from a file."""
    try:
        data = read_bytes(path)
    except OSError as problem:
        raise UserError(f"image {path} cannot be read: {problem.strerror}") from problem
    return read_rgb(data, str(path))


def _as_shown(picture: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in DEEP_MODES:
        picture = _in_eight_bits(picture)
    if picture.mode in TRANSPARENT_MODES or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode == "LAB":
        return _color_managed(picture, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if picture.mode == "CMYK" and (profile := picture.info.get("icc_profile")):
        # without the ink's own profile the colors come out far too bright
        return _color_managed(picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return picture.convert("RGB")


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """White is 1 in a floating-point image whose values end there, else the most that 16 bits hold."""
    values = np.asarray(picture, dtype=np.float32)
    white = 1.0 if picture.mode == "F" and values.max(initial=0) <= 1 else 65535.0
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))


def _color_managed(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # only in place is nothing returned
    return converted
