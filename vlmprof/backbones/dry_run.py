"""Backbones built and run without data, on torch's `meta` device: what a model gives, before any is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.facts import BackboneFacts
from vlmprof.backbones.random_weights import uninitialised
from vlmprof.errors import UserError, first_line


def built_without_data(make: Callable[[], Any]) -> Any:
    """What `make` builds, in eval mode and without memory."""
    with torch.inference_mode(False), uninitialised("meta", torch.float32):
        return make().eval()


def images(height: int, width: int) -> Tensor:
    """One image of this size in pixels, without data."""
    return torch.empty(1, 3, height, width, device="meta")


def reason(problem: BaseException) -> str:
    """An exception in one line."""
    if isinstance(problem, UserError):
        return str(problem)
    return f"{type(problem).__name__}: {first_line(str(problem), 160)}"


def check_promise(facts: BackboneFacts, level: int, levels: str, height: int, width: int) -> None:
    """Build the backbone without data and compare what it gives for an image of this size with its facts.

    Raises `UserError` in one line for a difference, and for a model that does not run.
    """
    from vlmprof.backbones import create_backbone

    try:
        encoder = create_backbone(
            facts.name, level=level, levels=levels, image_size=(height, width), device="meta"
        )
        with torch.inference_mode():
            tokens = encoder(images(height, width))
    except UserError:
        raise
    except Exception as problem:
        raise UserError(
            f"backbone {facts.name!r} cannot encode {width}x{height} ({reason(problem)})"
        ) from problem
    facts.check_output(tuple(tokens.shape), 1, height, width)
