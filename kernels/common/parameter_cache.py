"""What kernels make of parameters, made once and kept: packed, cast or transposed."""

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
    """`make(dtype, *parameters)`, kept for as long as the same parameters live unchanged.

    A parameter written in place has a new version and is made anew; one written through `.data`
    has not, which torch does not record. Inference tensors have no version and are never kept.
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
    # what was made goes with the first of its parameters: it may be as large as they are
    refs = tuple(weakref.ref(p, lambda _: _cache.pop(key, None)) for p in given)
    _cache[key] = _Entry(refs, versions, made)
    return made
