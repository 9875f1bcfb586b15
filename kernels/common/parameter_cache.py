"""A cache of copies of parameters that are packed, cast or transposed for kernels."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Entry:
    watched: tuple[weakref.ref[Any], ...]
    state: list[tuple[int, int]]
    made: Any


_cache: dict[tuple[object, ...], _Entry] = {}
"""By function, dtype and the parameters' identities. An entry is dropped with the first of its parameters, or
of the memory that they had, so that as long as there is an entry nothing else can have their identities and
addresses."""

# fused optimizers write to parameters without changing their versions
register_optimizer_step_post_hook(lambda *_: _cache.clear())


def cached_from_parameters(make: Callable[..., Made], dtype: torch.dtype, *parameters: Tensor | None) -> Made:
    """Return `make(dtype, *parameters)`, cached as long as the parameters exist and do not change.

    In-place writes to a parameter change its version and invalidate the result, as do moves to other memory
    and steps of optimizers. Writes through `.data` or NumPy do not, because torch does not track them.
    Inference tensors have no version and are not cached.
    """
    if torch.compiler.is_compiling():
        return make(dtype, *parameters)
    key = (make, dtype, *map(id, parameters))
    entry = _cache.get(key)
    if entry is not None and entry.state == _state(parameters):
        found: Made = entry.made
        return found
    given = [p for p in parameters if p is not None]
    if any(p.is_inference() for p in given):
        return make(dtype, *parameters)
    state = _state(parameters)
    made = make(dtype, *parameters)
    watched = (*given, *(p.untyped_storage() for p in given))
    refs = tuple(weakref.ref(each, lambda _: _cache.pop(key, None)) for each in watched)
    _cache[key] = _Entry(refs, state, made)
    return made


def _state(parameters: tuple[Tensor | None, ...]) -> list[tuple[int, int]]:
    """Return what changes with the values of parameters: versions and addresses."""
    return [(p._version, p.data_ptr()) for p in parameters if p is not None]
