"""The products and the depthwise convolution of a block: public functions and registered operators."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmprof.kernels.block.arguments import DepthwiseArguments, LinearArguments, MlpArguments
from vlmprof.kernels.block.mlp_tiles import is_fused
from vlmprof.kernels.block.operation import Operation
from vlmprof.kernels.block.plain import depthwise_conv_silu_plain, linear_plain, norm_mlp_plain
from vlmprof.kernels.common.backends import Backend
from vlmprof.kernels.common.operators import like_the_first, operator, under_autocast


def norm_linear(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> Tensor:
    """Compute activation(LayerNorm(x) · weightᵀ + bias) + residual, in one kernel with backend "triton".

    Args:
        x: (..., in_features), bfloat16, float16, float32 or float64.
        norm_weight, norm_bias: (in_features); the norm's statistics are float32 for every dtype of x.
        weight: (out_features, in_features), used in the dtype of x. bias: (out_features), or None.
        residual: (..., out_features), added last, or None.
        activation: "gelu" (by the error function), "silu" or None.
        eps: added to the variance.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        (..., out_features) in the dtype of x.

    Raises:
        ValueError: a shape or device does not fit, or the activation or backend is unknown.
        TypeError: the dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            "triton".

    Example:
        >>> x = torch.randn(1, 14, 14, 96)
        >>> weight = torch.randn(384, 96) / 96**0.5
        >>> norm_linear(x, torch.ones(96), torch.zeros(96), weight, activation="gelu").shape
        torch.Size([1, 14, 14, 384])

    Source: Ba et al., "Layer Normalization" (arXiv 1607.06450), followed by a linear layer.
    """
    arguments = LinearArguments(norm_weight, norm_bias, weight, bias, residual, activation, eps)
    return _norm_linear(under_autocast(x), arguments, backend)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Compute activation(x · weightᵀ + bias) + residual, in one kernel with backend "triton".

    Arguments, result and errors as in `norm_linear`.

    Example:
        >>> x, weight = torch.randn(2, 7, 96), torch.randn(48, 96)
        >>> linear(x, weight).shape
        torch.Size([2, 7, 48])
    """
    arguments = LinearArguments(None, None, weight, bias, residual, activation, 0.0)
    return _linear(under_autocast(x), arguments, backend)


def norm_mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    *,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> Tensor:
    """Compute x + fc2(GELU(fc1(LayerNorm(x)))).

    Backend "triton" computes it in one kernel, which keeps the hidden features on the chip, where
    `mlp_tiles.is_fused`, and otherwise by `norm_linear` and `linear`.

    Args:
        x: (..., channels), bfloat16, float16, float32 or float64.
        norm_weight, norm_bias: (channels); the norm's statistics are float32 for every dtype of x.
        fc1_weight: (hidden, channels). fc1_bias: (hidden).
        fc2_weight: (channels, hidden). fc2_bias: (channels). The weights are used in the dtype of x.
        eps: added to the variance.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        (..., channels) in the dtype of x. With one kernel, GELU is within 7e-7 of the exact one.

    Raises:
        ValueError, TypeError, RuntimeError: as in `norm_linear`.

    Example:
        >>> x = torch.randn(1, 14, 14, 96)
        >>> fc1, fc2 = torch.randn(384, 96) / 96**0.5, torch.randn(96, 384) / 384**0.5
        >>> norm_mlp(x, torch.ones(96), torch.zeros(96), fc1, torch.zeros(384), fc2, torch.zeros(96)).shape
        torch.Size([1, 14, 14, 96])

    Source: the MLP of a pre-norm block, as in Dosovitskiy et al., "ViT" (arXiv 2010.11929), equation 3.
    """
    arguments = MlpArguments(norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, eps)
    return _norm_mlp(under_autocast(x), arguments, backend)


def depthwise_conv_silu(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: Backend = "auto"
) -> Tensor:
    """Compute SiLU(depthwise convolution of x with "same" zero padding), channels last.

    Args:
        x: (batch, height, width, channels), bfloat16, float16, float32 or float64.
        weight: (channels, 1, k, k) with k odd. bias: (channels), or None.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        Same shape and dtype as x, contiguous; summed in float32 by "reference" and "triton".

    Raises:
        ValueError, TypeError, RuntimeError: as in `norm_linear`; k is even.

    Example:
        >>> x = torch.randn(1, 14, 14, 8)
        >>> depthwise_conv_silu(x, torch.randn(8, 1, 3, 3)).shape
        torch.Size([1, 14, 14, 8])

    Source: Liu et al., "VMamba" (arXiv 2401.10166), section 4.2: the operation before `ss2d` in a block.
    """
    return _depthwise_conv_silu(under_autocast(x), DepthwiseArguments(weight, bias), backend)


def _empty_product(x: Tensor, linear: LinearArguments) -> Tensor:
    return torch.empty(*x.shape[:-1], linear.weight.shape[0], dtype=x.dtype, device=x.device)


@operator("linear", LinearArguments, fake=_empty_product)
def _linear_op(x: Tensor, arguments: LinearArguments) -> Tensor:
    from vlmprof.kernels.block.fused_linear import linear_fused

    return linear_fused(x, arguments)


@operator("norm_mlp", MlpArguments, fake=like_the_first)
def _norm_mlp_op(x: Tensor, arguments: MlpArguments) -> Tensor:
    from vlmprof.kernels.block.fused_mlp import norm_mlp_fused

    return norm_mlp_fused(x, arguments)


@operator("depthwise_conv_silu", DepthwiseArguments, fake=like_the_first)
def _depthwise_conv_silu_op(x: Tensor, arguments: DepthwiseArguments) -> Tensor:
    from vlmprof.kernels.block.fused_depthwise import depthwise_conv_silu_fused

    return depthwise_conv_silu_fused(x, arguments)


def _mlp_kernels(x: Tensor, arguments: MlpArguments, direct: bool) -> Tensor:
    """Compute the MLP in one kernel, or in two with the hidden features in memory."""
    hidden, channels = arguments.fc1_weight.shape
    if is_fused(x.numel() // channels, channels, hidden, x.dtype):
        return _norm_mlp_op.run(x, arguments, direct)
    between = _linear_op.run(x, arguments.first(), direct)
    return _linear_op.run(between, arguments.second(x), direct)


_norm_linear = Operation("norm_linear", linear_plain, _linear_op.run)
_linear = Operation("linear", linear_plain, _linear_op.run)
_norm_mlp = Operation("norm_mlp", norm_mlp_plain, _mlp_kernels)
_depthwise_conv_silu = Operation(
    "depthwise_conv_silu", depthwise_conv_silu_plain, _depthwise_conv_silu_op.run
)
