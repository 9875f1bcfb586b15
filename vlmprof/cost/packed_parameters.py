"""What the project's Triton kernels keep of parameters for as long as those live: packed, folded, transposed.

It is made here as the kernels make it, of tensors without data, so that nothing has to be known of it but its
size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vlmprof.cost.liveness import in_blocks
from vlmprof.kernels.block.packing import fold, is_folded, tap_major, unfolded
from vlmprof.kernels.ss2d.packing import pack


class PackedParameters:
    """Counts what is kept, once for the same parameters however often they are used."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._known: set[tuple[object, ...]] = set()

    def note(self, func: Any, args: tuple[Any, ...]) -> None:
        """Take note of a call of an operator of `torch.ops.vlmprof`."""
        found = _kept_by(func.overloadpacket.__name__, args)
        if found is None:
            return
        make, parameters = found
        given = [parameter for parameter in parameters if parameter is not None]
        key = (make, args[0].dtype, *(parameter.untyped_storage()._cdata for parameter in given))
        if key in self._known:
            return
        self._known.add(key)
        sizes = tuple(None if p is None else (p.shape, p.stride(), p.dtype) for p in parameters)
        self.size_bytes += _kept_bytes(make, args[0].dtype, sizes)


@lru_cache(maxsize=4096)
def _kept_bytes(
    make: Callable[..., Any], dtype: torch.dtype, sizes: tuple[tuple[Any, ...] | None, ...]
) -> int:
    """Bytes in blocks of what `make` makes of parameters of these layouts."""
    parameters = [
        None if s is None else torch.empty_strided(s[0], s[1], dtype=s[2], device="meta") for s in sizes
    ]
    made = make(dtype, *parameters)
    parts = [made] if isinstance(made, Tensor) else vars(made).values()
    kept = [part for part in parts if isinstance(part, Tensor)]
    return sum(in_blocks(part.numel() * part.element_size()) for part in kept)


def _kept_by(
    operator: str, args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Tensor | None, ...]] | None:
    """What an operator makes of which of its arguments."""
    if operator == "ss2d":
        return pack, args[1:6]
    if operator == "depthwise_conv_silu":
        return tap_major, args[1:2]
    if operator == "linear" and args[1] is not None:
        x, *norm_and_product = args[:5]
        weight = norm_and_product[2]
        rows = x.numel() // weight.shape[1]
        return fold if is_folded(weight, rows) else unfolded, tuple(norm_and_product)
    return None
