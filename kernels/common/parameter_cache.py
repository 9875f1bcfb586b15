"""A cache of copies of parameters that are packed, cast or transposed for kernels."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Entry:
    parameters: tuple[weakref.ref[Tensor], ...]
    versions: tuple[int, ...]
    made: Any


_cache: dict[tuple[object, ...], _Entry] = {}


def cached_from_parameters(make: Callable[..., Made], dtype: torch.dtype, *parameters: Tensor | None) -> Made:
    """Return `make(dtype, *parameters)`, cached as long as the parameters exist and do not change.

    In-place writes to a parameter change its version and invalidate the result. Writes through `.data` do
    not, because torch does not track them. Inference tensors have no version and are not cached.
    """
    given = [p for p in parameters if p is not None]
    if torch.compiler.is_compiling() or any(p.is_inference() for p in given):
        return make(dtype, *parameters)
    key = (make, dtype, *(None if p is None else id(p) for p in parameters))
    versions = tuple(p._version for p in given)
    entry = _cache.get(key)
    if (
        entry is not None
        and entry.versions == versions
        and all(ref() is p for ref, p in zip(entry.parameters, given, strict=True))
    ):
        found: Made = entry.made
        return found
    made = make(dtype, *parameters)
    # an entry is dropped with the first of its parameters, because it may be as large as they are
    refs = tuple(weakref.ref(p, lambda _: _cache.pop(key, None)) for p in given)
    _cache[key] = _Entry(refs, versions, made)
    return made
