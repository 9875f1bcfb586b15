"""What kernels make of parameters, made once and kept: packed, cast or transposed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")

_cache: dict[tuple[object, ...], tuple[tuple[weakref.ref[Tensor], ...], Any]] = {}


def kept(make: Callable[..., Made], dtype: torch.dtype, *parameters: Tensor | None) -> Made:
    """`make(dtype, *parameters)`, kept for as long as the same parameters live unchanged.

    A parameter written in place has a new version and is made anew; one written through `.data`
    has not, which torch does not record. Inference tensors have no version and are never kept.
    """
    given = [p for p in parameters if p is not None]
    if torch.compiler.is_compiling() or any(p.is_inference() for p in given):
        return make(dtype, *parameters)
    key = (make, dtype, *(p if p is None else (id(p), p._version) for p in parameters))
    entry = _cache.get(key)
    if entry is not None and all(ref() is p for ref, p in zip(entry[0], given, strict=True)):
        found: Made = entry[1]
        return found
    made = make(dtype, *parameters)
    for stale in [k for k, (refs, _) in _cache.items() if any(ref() is None for ref in refs)]:
        del _cache[stale]
    _cache[key] = (tuple(weakref.ref(p) for p in given), made)
    return made
