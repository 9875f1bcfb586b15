"""Memory of the packed, folded and transposed parameters that the Triton kernels cache.

They are made here with the kernels' own functions, from parameters on `meta`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vlmprof.cost.liveness import in_blocks
from vlmprof.kernels.block.packing import fold, is_folded, tap_major, taps_first, unfolded
from vlmprof.kernels.ss2d.packing import pack


class PackedParameters:
    """Total size of the cached tensors. Parameters that are used repeatedly are counted once."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._known: set[tuple[object, ...]] = set()

    def note(self, func: Any, args: tuple[Any, ...]) -> None:
        """Add what a call of an operator of `torch.ops.vlmprof` caches."""
        found = _cached_by(func.overloadpacket.__name__, args)
        if found is None:
            return
        make, parameters = found
        given = [parameter for parameter in parameters if parameter is not None]
        key = (make, args[0].dtype, *(parameter.untyped_storage()._cdata for parameter in given))
        if key in self._known:
            return
        self._known.add(key)
        sizes = tuple(None if p is None else (p.shape, p.stride(), p.dtype) for p in parameters)
        self.size_bytes += _cached_bytes(make, args[0].dtype, sizes)


@lru_cache(maxsize=4096)
def _cached_bytes(
    make: Callable[..., Any], dtype: torch.dtype, sizes: tuple[tuple[Any, ...] | None, ...]
) -> int:
    """Return the bytes, in blocks, that `make` returns for parameters with these (shape, stride, dtype)."""
    parameters = [
        None if s is None else torch.empty_strided(s[0], s[1], dtype=s[2], device="meta") for s in sizes
    ]
    made = make(dtype, *parameters)
    parts = [made] if isinstance(made, Tensor) else vars(made).values()
    kept = [part for part in parts if isinstance(part, Tensor)]
    return sum(in_blocks(part.nbytes) for part in kept)


def _cached_by(
    operator: str, args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Tensor | None, ...]] | None:
    """Return the function that makes the cached tensors of an operator, and the arguments that it uses."""
    if operator == "ss2d":
        return pack, args[1:6]
    if operator == "depthwise_conv_silu":
        return tap_major, args[1:2]
    if operator == "convolution_norm":
        return taps_first, args[1:2]
    if operator == "linear" and args[1] is not None:
        x, *norm_and_product = args[:5]
        weight = norm_and_product[2]
        rows = x.numel() // weight.shape[1]
        return fold if is_folded(weight, rows) else unfolded, tuple(norm_and_product)
    return None
