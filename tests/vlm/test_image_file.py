"""Image files of every kind that Pillow writes, against the colors that they were made of."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from vlmprof.errors import UserError
from vlmprof.vlm.image_file import read_rgb, read_rgb_file
from vlmprof.vlm.preprocess import Preprocess

Color = float | tuple[int, ...]
RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def halves(left: Color, right: Color, mode: str = "RGB", size: tuple[int, int] = (8, 4)) -> Image.Image:
    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def written(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def corners(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The colors at the top left and at the bottom right."""
    picture = read_rgb(data, "picture")
    assert picture.mode == "RGB"
    first, last = picture.getpixel((0, 0)), picture.getpixel((picture.width - 1, picture.height - 1))
    assert isinstance(first, tuple)
    assert isinstance(last, tuple)
    return first, last


UPRIGHT: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}
"""How a camera that writes this orientation stores an upright picture (Exif 2.3, tag 0x0112)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_stands_upright(orientation: int, format: str) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = read_rgb(written(UPRIGHT[orientation](upright), format, exif=exif), "picture")
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(upright))


def test_letterbox_of_a_turned_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken on its side: 64 × 32 on disk, 32 × 64 to look at
    halves(RED, BLUE, size=(64, 32)).save(tmp_path / "photo.png", exif=exif)
    image = Preprocess(tmp_path / "photo.png", 64, 64, fit="letterbox")()[0]
    assert image[:, :, :16].abs().max() < 0.02  # the bars are on the left and on the right
    assert image[:, :, 48:].abs().max() < 0.02
    assert image[0, 0, 32] > 1.5  # red above
    assert image[2, -1, 32] > 1.5  # blue below


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_of_gray(format: str) -> None:
    ramp = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
    shown = np.asarray(read_rgb(written(Image.fromarray(ramp), format), "ramp")).astype(np.float64)
    np.testing.assert_allclose(shown[..., 0], ramp / 257, atol=0.5)
    assert abs(shown.mean() / 255 - 0.5) < 1e-3


def test_sixteen_bits_of_gray_in_thirty_two() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.int32).reshape(16, 16)
    shown = np.asarray(read_rgb(written(Image.fromarray(ramp), "TIFF"), "ramp")).astype(np.float64)
    np.testing.assert_allclose(shown[..., 0], ramp / 257, atol=0.5)


def test_floating_point() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    shown = np.asarray(read_rgb(written(Image.fromarray(ramp), "TIFF"), "ramp")).astype(np.float64)
    np.testing.assert_allclose(shown[..., 0], ramp * 255, atol=0.5)


@pytest.mark.parametrize(
    ("data", "left", "right"),
    [
        (written(halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA"), "PNG"), RED, WHITE),
        (written(halves((255, 0, 0, 255), (0, 0, 0, 51), "RGBA"), "PNG"), RED, (204, 204, 204)),
        (written(halves((0, 255), (0, 0), "LA"), "PNG"), BLACK, WHITE),
        (written(halves(RED, BLUE).quantize(2), "PNG"), RED, BLUE),
        (written(halves(RED, BLUE), "PNG", transparency=BLUE), RED, WHITE),
        (written(halves(0, 255, "L"), "PNG", transparency=0), WHITE, WHITE),
        (written(halves(0, 255, "1"), "PNG"), BLACK, WHITE),
        (written(halves(RED, BLUE), "GIF", save_all=True, append_images=[halves(BLUE, RED)]), RED, BLUE),
        (written(halves(RED, BLUE), "TIFF", save_all=True, append_images=[halves(BLUE, RED)]), RED, BLUE),
        (written(halves(RED, BLUE), "PNG", save_all=True, append_images=[halves(BLUE, RED)]), RED, BLUE),
        (written(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK"), "TIFF"), RED, BLUE),
    ],
    ids=[
        "transparent", "translucent", "gray", "palette", "one color", "one gray", "black and white",
        "first of a GIF", "first of a TIFF", "first of an APNG", "CMYK",
    ],
)  # fmt: skip
def test_colors(data: bytes, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    assert corners(data) == (left, right)


def test_a_palette_with_one_transparent_color() -> None:
    indexed = halves(RED, BLUE).quantize(2)
    blue = indexed.getpixel((7, 0))
    assert corners(written(indexed, "GIF", transparency=blue)) == (RED, WHITE)
    assert corners(written(indexed, "PNG", transparency=blue)) == (RED, WHITE)


def test_a_jpeg_in_cmyk() -> None:
    left, right = corners(
        written(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK", (32, 32)), "JPEG", quality=98)
    )
    assert np.abs(np.subtract(left, RED)).max() <= 3
    assert np.abs(np.subtract(right, BLUE)).max() <= 3


def test_the_lab_color_space() -> None:
    teal, brown = (70, 130, 140), (150, 110, 80)  # well inside of what 8 bits of LAB tell apart
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = ImageCms.profileToProfile(halves(teal, brown), srgb, lab, outputMode="LAB")
    assert picture is not None
    left, right = corners(written(picture, "TIFF"))
    assert np.abs(np.subtract(left, teal)).max() <= 3
    assert np.abs(np.subtract(right, brown)).max() <= 3


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n cut off"])
def test_what_is_no_image_gets_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(UserError, match=r"^image .*broken\.png cannot be read: [^\n]+$"):
        read_rgb_file(tmp_path / "broken.png")
