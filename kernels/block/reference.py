"""The block operations in float32 (float64 for float64 input), rounded once: the oracle.

Shapes and sources as in `op`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlmprof.kernels.block.plain import (
    convolution_norm_plain,
    depthwise_conv_silu_plain,
    layer_norm_plain,
    linear_plain,
    norm_mlp_plain,
)
from vlmprof.kernels.common.backends import compute_dtype


def _widened(argument: Any) -> Any:
    return argument.to(compute_dtype(argument.dtype)) if isinstance(argument, Tensor) else argument


def linear_reference(x: Tensor, *others: Any) -> Tensor:
    """Compute `linear_plain` for the same arguments: x (..., in_features) -> (..., out_features)."""
    return linear_plain(*map(_widened, (x, *others))).to(x.dtype)


def layer_norm_reference(x: Tensor, *others: Any) -> Tensor:
    """Compute `layer_norm_plain` for the same arguments: x (..., channels) -> the same shape."""
    return layer_norm_plain(*map(_widened, (x, *others))).to(x.dtype)


def convolution_norm_reference(x: Tensor, *others: Any) -> Tensor:
    """Compute `convolution_norm_plain` for the same arguments."""
    return convolution_norm_plain(*map(_widened, (x, *others))).to(x.dtype)


def norm_mlp_reference(x: Tensor, *others: Any) -> Tensor:
    """Compute `norm_mlp_plain` for the same arguments: x (..., channels) -> the same shape and dtype."""
    return norm_mlp_plain(*map(_widened, (x, *others))).to(x.dtype)


def depthwise_conv_silu_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `depthwise_conv_silu`: x (batch, height, width, channels) -> the same shape and dtype."""
    return depthwise_conv_silu_plain(_widened(x), _widened(weight), _widened(bias)).to(x.dtype)
