"""Products of groups of rows, each with its own matrix, on torch's `meta` device: the experts of a layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = ("_grouped_mm", "grouped_mm_fallback")


def is_grouped_product(func: Any) -> bool:
    """Return whether an operator multiplies each group of rows by its own matrix."""
    return func.namespace in ("aten", "transformers") and func.overloadpacket.__name__ in _NAMES


def grouped_output(a: Tensor, b: Tensor, offs: Tensor | None = None, **options: Any) -> Tensor:
    """Return the output of a grouped product on `meta`, where torch's own kernel supports only bfloat16.

    The groups are along the rows of (rows, k) × (groups, k, n), the columns of (groups, m, k) × (k, columns),
    k of (m, k) × (k, n), and the first dimension of (groups, m, k) × (groups, k, n).
    """
    size: tuple[int, ...] = (a.shape[-2], b.shape[-1])
    if a.dim() == b.dim():
        groups = a.shape[0] if a.dim() == 3 else 1 if offs is None else offs.numel()
        size = (groups, *size)
    return a.new_empty(size, dtype=options.get("out_dtype") or a.dtype)


class GroupedProducts(TorchDispatchMode):
    """While active, run grouped products of every dtype on `meta`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_grouped_product(func) and args[0].is_meta:
            return grouped_output(*args[:3], **(kwargs or {}))
        return func(*args, **(kwargs or {}))
