"""Photos of any size through a VLM's own processor, for plans, estimates and sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlmprof.errors import UserError, message_of
from vlmprof.settings import Fit, ProcessorBackend
from vlmprof.vlm.hf_vlm.model import read_config
from vlmprof.vlm.hf_vlm.photo import PhotoFacts, PhotoInputs, check_enlarged
from vlmprof.vlm.hf_vlm.processors import OwnProcessor, make_processor
from vlmprof.vlm.image_file import read_rgb, read_rgb_file
from vlmprof.vlm.preprocess import fitted, generated_jpeg


@dataclass(frozen=True)
class OwnPhoto:
    """Photos of one size, and the processor that takes them."""

    photos: list[Image.Image]
    make: PhotoInputs
    facts: PhotoFacts
    backend: str
    """What resizes: `pil` or `torchvision`."""
    warnings: tuple[str, ...]

    def inputs(self, device: torch.device | str) -> dict[str, Any]:
        """Process the photos, and return the model's inputs on `device`."""
        return self.make(self.photos, device)


def own_photo(
    name: str,
    size: tuple[int, int],
    dtype: str,
    *,
    prompt_tokens: int = 0,
    backend: ProcessorBackend = "auto",
    batch_size: int = 1,
    image: str | None = None,
    fit: Fit = "resize",
    seed: int = 0,
) -> OwnPhoto:
    """Return photos of `size` (height, width) in pixels for the VLM `name`, from a file or generated.

    Raises `UserError` if there is no such VLM or processor, or it does not accept the size.
    """
    source = read_rgb_file(Path(image)) if image else read_rgb(generated_jpeg(seed), "that was generated")
    photo = fitted(source, size, fit if fit == "letterbox" else "resize")
    return processed(name, [photo] * batch_size, dtype, prompt_tokens, backend)[0]


def blank_photo(size: tuple[int, int]) -> Image.Image:
    """Return a black photo of `size` (height, width) in pixels."""
    return Image.new("RGB", size[::-1])


def processed(
    name: str, photos: list[Image.Image], dtype: str, prompt_tokens: int, backend: ProcessorBackend
) -> tuple[OwnPhoto, dict[str, Any]]:
    """Return photos of one size for the VLM `name`, and the inputs made of them. Raises as `own_photo`."""
    config, own = _processor(name, backend)
    make = PhotoInputs(own, config, prompt_tokens, getattr(torch, dtype))
    width, height = photos[0].size
    check_enlarged(name, own, (height, width))
    try:
        inputs = make(photos)
    except Exception as problem:  # processors divide by sides that they rounded to 0, among other things
        if isinstance(problem, MemoryError) or "out of memory" in str(problem):
            raise
        reason = message_of(problem)
        raise UserError(f"vlm {name!r} does not accept a photo of {width}x{height} ({reason})") from problem
    return OwnPhoto(photos, make, make.facts(inputs, len(photos)), own.backend, own.warnings), inputs


def check_processor(name: str, backend: ProcessorBackend = "auto") -> None:
    """Raise `UserError` if there is no such VLM, or no processor for it."""
    _processor(name, backend)


@lru_cache(maxsize=512)
def photo_facts(name: str, size: tuple[int, int], backend: ProcessorBackend = "auto") -> PhotoFacts:
    """Return the facts of a photo of `size` (height, width) in pixels."""
    return processed(name, [blank_photo(size)], "float32", 0, backend)[0].facts


@lru_cache(maxsize=8)
def _processor(name: str, backend: ProcessorBackend) -> tuple[Any, OwnProcessor]:
    config, folder = read_config(name)
    return config, make_processor(name, config, folder, None if backend == "auto" else backend)
