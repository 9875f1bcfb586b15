"""From an image file to a normalised tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlmprof.errors import UserError
from vlmprof.vlm.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A 60×30 PNG, left half red, right half blue."""
    pixels = np.zeros((30, 60, 3), dtype=np.uint8)
    pixels[:, :30, 0] = 255
    pixels[:, 30:, 2] = 255
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def back_to_pixels(image: torch.Tensor) -> torch.Tensor:
    return image.permute(1, 2, 0) * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)


def test_resize_fills_the_target(picture: Path) -> None:
    images = Preprocess(picture, 32, 48, batch_size=2)()
    assert images.shape == (2, 3, 32, 48)
    pixels = back_to_pixels(images[0])
    torch.testing.assert_close(pixels[:, 0], torch.tensor([1.0, 0, 0]).expand(32, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels[:, -1], torch.tensor([0, 0, 1.0]).expand(32, 3), atol=1e-5, rtol=0)


def test_letterbox_keeps_the_aspect_ratio(picture: Path) -> None:
    image = Preprocess(picture, 64, 64, fit="letterbox")()[0]
    bars = torch.cat((image[:, :16], image[:, 48:]), dim=1)
    assert bars.abs().max() < 0.02
    torch.testing.assert_close(
        back_to_pixels(image)[16:48, 0], torch.tensor([1.0, 0, 0]).expand(32, 3), atol=1e-5, rtol=0
    )


def test_padding_stands_below_and_to_the_right(picture: Path) -> None:
    image = Preprocess(picture, 48, 64, fit="pad", inner=(40, 60))()[0]
    assert image.shape == (3, 48, 64)
    bars = torch.cat((image[:, 40:].flatten(1), image[:, :, 60:].flatten(1)), dim=1)
    assert bars.abs().max() < 0.02
    inner = Preprocess(picture, 40, 60)()[0]
    torch.testing.assert_close(image[:, :40, :60], inner)


def test_the_file_is_read_again_every_time(picture: Path) -> None:
    preprocess = Preprocess(picture, 16, 16)
    before = preprocess()
    Image.new("RGB", (10, 10), (0, 255, 0)).save(picture)
    assert not torch.equal(before, preprocess())


def test_a_generated_image_stands_in() -> None:
    first, again = Preprocess(None, 33, 57)(), Preprocess(None, 33, 57)()
    other = Preprocess(None, 33, 57, seed=1, dtype=torch.bfloat16)()
    assert torch.equal(first, again)
    assert first.shape == (1, 3, 33, 57)
    assert other.dtype == torch.bfloat16
    assert first.std() > 0.3
    assert not torch.equal(first, other.float())


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n cut off"])
def test_an_unreadable_image_gets_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as problem:
        Preprocess(path, 16, 16)
    assert "broken.png" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_truncated_jpeg_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 60).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        Preprocess(path, 16, 16)


def test_an_unknown_fit_is_refused(picture: Path) -> None:
    with pytest.raises(UserError, match="letterbox"):
        Preprocess(picture, 16, 16, fit="leterbox")  # type: ignore[arg-type]
