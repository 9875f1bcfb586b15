"""Cross-scan and cross-merge without temporaries larger than the result: the `torch` backend.

Source: as in `reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype


def cross_scan_vectorized(x: Tensor) -> Tensor:
    """Compute `cross_scan`: x (batch, d, height, width), any dtype -> (batch, 4, d, height · width)."""
    batch, d_inner, height, width = x.shape
    xs = x.new_empty(batch, 4, d_inner, height * width)
    xs[:, 0].unflatten(-1, (height, width)).copy_(x)
    xs[:, 1].unflatten(-1, (width, height)).copy_(x.transpose(2, 3))
    xs[:, 2:].copy_(xs[:, :2].flip(-1))
    return xs


def cross_merge_vectorized(ys: Tensor, height: int, width: int) -> Tensor:
    """Compute `cross_merge`: ys (batch, 4, d, height · width) -> (batch, d, height, width), same dtype.

    The sum is float32, or float64 for float64 input, and rounded once.
    """
    dtype = compute_dtype(ys.dtype)
    both = ys[:, 2:].flip(-1).to(dtype)
    both += ys[:, :2]
    merged = both[:, 0].unflatten(-1, (height, width))
    merged += both[:, 1].unflatten(-1, (width, height)).transpose(2, 3)
    return merged.to(ys.dtype, memory_format=torch.contiguous_format, copy=True)
