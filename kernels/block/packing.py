"""The parameters of a block, packed as the kernels read them.

A layer norm is taken out of the product after it. With γ, β its weight and bias, μ and σ of a row of x,

    W ((x - μ) / σ · γ + β) + b = ((W γ) x - μ (W γ) 1) / σ + (W β + b).

Where W γ would take more memory than x and y, only its row sums are stored, and the kernel multiplies the
rows, less a value of their own, by γ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows of a weight that are widened at once for its product with a norm's bias."""


def is_folded(weight: Tensor, rows: int) -> bool:
    """Whether W γ of a weight (M, K) takes no more than so many rows of x and y."""
    features, depth = weight.shape
    return features * depth <= rows * (features + depth)


@dataclass(frozen=True)
class FoldedNorm:
    """What a product needs of the layer norm that was taken out of it."""

    weight: Tensor | None
    """(M, K), W γ in the dtype of x, or None for W as it is."""
    sums: Tensor
    """(M), of W γ over K, float32."""
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
    offset = _offset(norm_bias, weight, bias)
    if not folded:
        return FoldedNorm(None, _times(weight, norm_weight), offset)
    scaled = (weight * norm_weight).to(dtype)
    # the sums of what it was rounded to
    return FoldedNorm(scaled, scaled.sum(1, dtype=torch.float32), offset)


fold = partial(_folded_norm, True)
"""With W γ as the weight, for (dtype, norm weight, norm bias, weight, bias)."""

unfolded = partial(_folded_norm, False)
"""The same with W as the weight, for rows that the kernel multiplies by γ. The result does not refer to W, so
that a cached one is dropped with W."""


def tap_major(dtype: torch.dtype, weight: Tensor) -> Tensor:
    """A filter (channels, 1, k, k) as (k · k, channels): neighbouring lanes read neighbouring channels."""
    return weight.to(dtype).flatten(1).t().contiguous()


def _offset(norm_bias: Tensor | None, weight: Tensor, bias: Tensor | None) -> Tensor:
    offset = weight.new_zeros(weight.shape[0], dtype=torch.float32)
    if norm_bias is not None:
        offset = _times(weight, norm_bias)
    return offset if bias is None else offset + bias.float()


def _times(weight: Tensor, vector: Tensor) -> Tensor:
    """weight · vector in float32, by parts: a wider copy of the weight would be a small image's peak."""
    wide = vector.float()
    return torch.cat([(part.float() * wide).sum(1) for part in weight.split(ROWS_AT_ONCE)])
