"""Cross-scan and cross-merge in plain PyTorch: four scan orders of an image, and their sum. The oracle.

Source: Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), section 4.3.
Directions: 0 by rows, 1 by columns, 2 by rows reversed, 3 by columns reversed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype


def cross_scan_reference(x: Tensor) -> Tensor:
    """Compute `cross_scan`: x (batch, d, height, width), any dtype -> (batch, 4, d, height · width)."""
    rows = x.flatten(2)
    columns = x.transpose(2, 3).flatten(2)
    return torch.stack((rows, columns, rows.flip(-1), columns.flip(-1)), dim=1)


def cross_merge_reference(ys: Tensor, height: int, width: int) -> Tensor:
    """Compute `cross_merge`: ys (batch, 4, d, height · width) -> (batch, d, height, width), same dtype.

    The sum is float32, or float64 for float64 input, and rounded once.
    """
    rows, columns, rows_back, columns_back = ys.to(compute_dtype(ys.dtype)).unbind(1)
    by_rows = (rows + rows_back.flip(-1)).unflatten(-1, (height, width))
    by_columns = (columns + columns_back.flip(-1)).unflatten(-1, (width, height))
    return (by_rows + by_columns.transpose(2, 3)).to(ys.dtype)
