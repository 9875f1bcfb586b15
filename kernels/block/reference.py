"""The block operations in float32 (float64 for float64 input), rounded once: the oracle.

Shapes and sources as in `op`.
"""

from __future__ import annotations

from typing import overload

from torch import Tensor

from vlmprof.kernels.block.plain import depthwise_conv_silu_plain, linear_plain, norm_linear_plain
from vlmprof.kernels.common.backends import compute_dtype


@overload
def _widened(tensor: Tensor) -> Tensor: ...
@overload
def _widened(tensor: None) -> None: ...
@overload
def _widened(tensor: Tensor | None) -> Tensor | None: ...
def _widened(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(compute_dtype(tensor.dtype))


def norm_linear_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    eps: float,
) -> Tensor:
    """Compute `norm_linear`: x (..., in_features), a floating dtype -> (..., out_features) in that dtype."""
    return norm_linear_plain(
        _widened(x),
        _widened(norm_weight),
        _widened(norm_bias),
        _widened(weight),
        _widened(bias),
        _widened(residual),
        activation,
        eps,
    ).to(x.dtype)


def linear_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str | None
) -> Tensor:
    """Compute `linear`: x (..., in_features), a floating dtype -> (..., out_features) in that dtype."""
    y = linear_plain(_widened(x), _widened(weight), _widened(bias), _widened(residual), activation)
    return y.to(x.dtype)


def depthwise_conv_silu_reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `depthwise_conv_silu`: x (batch, height, width, channels) -> the same shape and dtype."""
    return depthwise_conv_silu_plain(_widened(x), _widened(weight), _widened(bias)).to(x.dtype)
