"""Backbones built and run without data, on torch's `meta` device: what a model gives, before any is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.random_weights import uninitialised
from vlmprof.errors import UserError, in_one_line


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
    return in_one_line(problem, 160)
