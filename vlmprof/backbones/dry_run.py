"""Encoders of other libraries built and run without data, on torch's `meta` device, to see what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vlmprof.backbones.facts import BackboneFacts
from vlmprof.backbones.geometry import Geometry, NoGridError, Seen, find_geometry
from vlmprof.backbones.random_weights import uninitialised
from vlmprof.backbones.token_layout import Join, TokenLayout, possible_layouts
from vlmprof.errors import UserError, error_line

Run = Callable[[Tensor], Sequence[Tensor]]
"""Return each feature level's output for one image (1, 3, height, width) without data."""


@dataclass(frozen=True)
class Examined:
    """What an encoder gives, with one entry for each feature level."""

    layouts: tuple[TokenLayout, ...]
    channels: tuple[int, ...]
    geometry: Geometry

    def facts(self, draft: BackboneFacts) -> BackboneFacts:
        """Complete a draft; with several levels the finest is tapped."""
        geometry, several = self.geometry, len(self.channels) > 1
        return replace(
            draft,
            embed_dim=self.channels[0],
            stride=geometry.strides[0],
            min_size=geometry.min_size,
            multiple=geometry.multiple,
            config={**draft.config, "layouts": self.layouts},
            level_dims=self.channels if several else (),
            level_strides=geometry.strides if several else (),
            level=1 if several else None,
            rounding=geometry.rounding,
            square=geometry.square,
            fixed_size=geometry.fixed_size,
        )


def examine(run: Run, sizes: Iterable[tuple[int, int]], patch: int | None = None) -> Examined:
    """Run an encoder at many sizes, beginning with the first of `sizes`, (height, width), that it accepts.

    `patch` is the stride that a configuration names, if any. Raises `NoGridError` if the output is no grid of
    tokens over the image, and the encoder's own exception if it accepts none of `sizes`.
    """
    native, layouts = _first_that_runs(run, sizes, patch)

    @cache
    def attempt(height: int, width: int) -> Sequence[Seen] | None:
        try:
            with torch.inference_mode():
                levels = run(images(height, width))
            return [layout.seen(level) for layout, level in zip(layouts, levels, strict=True)]
        except Exception:
            # an encoder refuses a size in as many ways as there are architectures
            return None

    seen = attempt(*native)
    assert seen is not None
    least_step = 1
    if patch and seen[0].grid is None and seen[0].tokens == (native[0] // patch) * (native[1] // patch):
        least_step = patch
    geometry = find_geometry(attempt, native, patch=patch, least_step=least_step)
    return Examined(layouts, tuple(level.channels for level in seen), geometry)


def _first_that_runs(
    run: Run, sizes: Iterable[tuple[int, int]], patch: int | None
) -> tuple[tuple[int, int], tuple[TokenLayout, ...]]:
    """Return the first size that an encoder accepts, and the layouts of its output.

    Where that size allows several, the first size decides that does not.
    """
    problems: list[Exception] = []
    found: tuple[tuple[int, int], tuple[TokenLayout, ...]] | None = None
    for size in sizes:
        try:
            with torch.inference_mode(), _Joins() as joins:
                levels = run(images(*size))
            possible = [possible_layouts(level, size, patch, joins.seen) for level in levels]
        except Exception as problem:
            if isinstance(problem, NoGridError) and found is None:
                raise
            problems.append(problem)
            continue
        layouts = tuple(choices[0] for choices in possible)
        if all(len(choices) == 1 for choices in possible):
            return (found[0] if found else size), layouts
        found = found or (size, layouts)
    if found is None:
        raise problems[0]
    return found


class _Joins(TorchDispatchMode):
    """Record every concatenation of sequences of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Join] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default and result.ndim == 3 and len(args) > 1 and args[1] in (1, -2):
            self.seen.append((result.shape[1], tuple(part.shape[1] for part in args[0])))
        return result


def built_without_data(make: Callable[[], Any]) -> Any:
    """Build a module in eval mode and without memory."""
    with torch.inference_mode(False), uninitialised("meta", torch.float32):
        return make().to("meta").eval()


def images(height: int, width: int) -> Tensor:
    """Return one image of this size in pixels, without data."""
    return torch.empty(1, 3, height, width, device="meta")


def reason(problem: BaseException) -> str:
    """Return an exception in one line."""
    if isinstance(problem, UserError):
        return str(problem)
    return error_line(problem, 160)
