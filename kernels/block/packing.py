"""The parameters of a block, packed for the kernels.

A layer norm is factored out of the product that follows it. With γ, β its weight and bias, μ and σ of a row
of x,

    W ((x - μ) / σ · γ + β) + b = ((W γ) x - μ (W γ) 1) / σ + (W β + b).

If W γ takes more memory than x and y, only its row sums are stored, and the kernel multiplies the rows by γ,
after subtracting a pivot per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows of a weight that are converted to float32 at once for its product with a norm's bias."""


def is_folded(weight: Tensor, rows: int) -> bool:
    """Return whether W γ of a weight (M, K) takes no more memory than `rows` rows of x and y."""
    features, depth = weight.shape
    return features * depth <= rows * (features + depth)


@dataclass(frozen=True)
class FoldedNorm:
    """The terms of a layer norm that was factored out of a product."""

    weight: Tensor | None
    """(M, K), W γ in the dtype of x, or None to use W."""
    sums: Tensor
    """(M), sums of W γ over K, float32."""
    offset: Tensor
    """(M), W β + b, float32."""


def _folded_norm(
    folded: bool,
    dtype: torch.dtype,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> FoldedNorm:
    offset = weight.new_zeros(weight.shape[0], dtype=torch.float32)
    if norm_bias is not None:
        offset = _times(weight, norm_bias)
    if bias is not None:
        offset = offset + bias.float()
    if not folded:
        return FoldedNorm(None, _times(weight, norm_weight), offset)
    scaled = (weight * norm_weight).to(dtype)
    # sums of the rounded values
    return FoldedNorm(scaled, scaled.sum(1, dtype=torch.float32), offset)


fold = partial(_folded_norm, True)
"""Fold a norm, with W γ as the weight, from (dtype, norm weight, norm bias, weight, bias)."""

unfolded = partial(_folded_norm, False)
"""The same with W as the weight, for kernels that multiply rows by γ. The result does not refer to W, so that
a cached result is dropped with W."""


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in a dtype, contiguous. `Tensor.to` takes 1 µs even where there is nothing to do."""
    return (weight if weight.dtype == dtype else weight.to(dtype)).contiguous()


def tap_major(dtype: torch.dtype, weight: Tensor) -> Tensor:
    """Reorder a filter (channels, 1, k, k) to (k · k, channels): adjacent lanes read adjacent channels."""
    return weight.to(dtype).flatten(1).t().contiguous()


def padded_taps(taps: int) -> int:
    """Return the depth of a product over the values under a filter: a power of two, at least 16."""
    return max(16, 1 << (taps - 1).bit_length())


def taps_first(dtype: torch.dtype, weight: Tensor) -> Tensor:
    """Reorder filters (out, in, k, k) to (out, k · k · in) and pad both with zeros to whole blocks."""
    rows = weight.to(dtype).permute(0, 2, 3, 1).flatten(1)
    missing = padded_taps(rows.shape[1]) - rows.shape[1]
    return torch.nn.functional.pad(rows, (0, missing, 0, -rows.shape[0] % 256))


def _times(weight: Tensor, vector: Tensor) -> Tensor:
    """Compute weight · vector in float32 by parts: a float32 copy of the weight would raise the peak."""
    wide = vector.float()
    return torch.cat([(part.float() * wide).sum(1) for part in weight.split(ROWS_AT_ONCE)])
