"""The public functions of the block: checks, choice of backend, registered operators."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from vlmprof.kernels.block.mlp_tiles import is_fused
from vlmprof.kernels.block.plain import (
    ACTIVATIONS,
    depthwise_conv_silu_plain,
    linear_plain,
    norm_mlp_plain,
)
from vlmprof.kernels.block.reference import (
    depthwise_conv_silu_reference,
    linear_reference,
    norm_mlp_reference,
)
from vlmprof.kernels.common.backends import Backend, needs_grad, refuse_grad, resolve_backend
from vlmprof.kernels.common.checks import check_device, check_dims, check_float, check_shape
from vlmprof.kernels.common.direct import has_passed, passed, signature
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
    op = "norm_linear"
    x = under_autocast(x)
    arguments = (x, norm_weight, norm_bias, weight, bias, residual, activation, eps)
    signed = signature(op, *arguments, backend)
    if has_passed(signed):
        return _linear_op.direct(*arguments)
    _check_linear(op, x, weight, bias, residual, activation)
    for name, tensor in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if tensor is not None:
            check_shape(op, name, tensor, (x.shape[-1],), "(in_features)")
    check_device(op, x.device, norm_weight=norm_weight, norm_bias=norm_bias)
    return _computed(op, backend, signed, *arguments)


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
    op = "linear"
    x = under_autocast(x)
    arguments = (x, None, None, weight, bias, residual, activation, 0.0)
    signed = signature(op, *arguments, backend)
    if has_passed(signed):
        return _linear_op.direct(*arguments)
    _check_linear(op, x, weight, bias, residual, activation)
    return _computed(op, backend, signed, *arguments)


def _computed(op: str, backend: Backend, signed: Hashable, x: Tensor, *others: Any) -> Tensor:
    """Compute the product on the chosen backend; `others` are the arguments of `_linear_op` after x."""
    chosen = resolve_backend(op, x.device, backend)
    if chosen == "reference":
        return linear_reference(x, *others)
    if chosen == "torch":
        return linear_plain(x, *others)
    if needs_grad(x, *others[:5]):  # the tensors
        refuse_grad(op, chosen)
    y = _linear_op(x, *others)
    passed(signed, x, *others[:5])
    return y


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
        ValueError: a shape or device does not fit, or the backend is unknown.
        TypeError: the dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            "triton".

    Example:
        >>> x = torch.randn(1, 14, 14, 96)
        >>> fc1, fc2 = torch.randn(384, 96) / 96**0.5, torch.randn(96, 384) / 384**0.5
        >>> norm_mlp(x, torch.ones(96), torch.zeros(96), fc1, torch.zeros(384), fc2, torch.zeros(96)).shape
        torch.Size([1, 14, 14, 96])

    Source: the MLP of a pre-norm block, as in Dosovitskiy et al., "ViT" (arXiv 2010.11929), equation 3.
    """
    op = "norm_mlp"
    x = under_autocast(x)
    check_float(op, "x", x)
    check_dims(op, "fc1_weight", fc1_weight, 2, "(hidden, channels)")
    hidden, channels = fc1_weight.shape
    if x.dim() < 1 or x.shape[-1] != channels:
        raise ValueError(f"{op}: x must be (..., channels = {channels}), got {tuple(x.shape)}")
    check_shape(op, "fc1_bias", fc1_bias, (hidden,), "(hidden)")
    check_shape(op, "fc2_weight", fc2_weight, (channels, hidden), "(channels, hidden)")
    for name, tensor in (("norm_weight", norm_weight), ("norm_bias", norm_bias), ("fc2_bias", fc2_bias)):
        check_shape(op, name, tensor, (channels,), "(channels)")
    parameters = (norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    check_device(
        op, x.device, norm_weight=norm_weight, norm_bias=norm_bias, fc1_weight=fc1_weight, fc1_bias=fc1_bias,
        fc2_weight=fc2_weight, fc2_bias=fc2_bias,
    )  # fmt: skip
    chosen = resolve_backend(op, x.device, backend)
    if chosen == "reference":
        return norm_mlp_reference(x, *parameters, eps)
    if chosen == "torch":
        return norm_mlp_plain(x, *parameters, eps)
    if needs_grad(x, *parameters):
        refuse_grad(op, chosen)
    if is_fused(x.numel() // channels, channels, hidden, x.dtype):
        return _norm_mlp_op(x, *parameters, eps)
    between = _linear_op(x, norm_weight, norm_bias, fc1_weight, fc1_bias, None, "gelu", eps)
    return _linear_op(between, None, None, fc2_weight, fc2_bias, x, None, 0.0)


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
        ValueError: a shape or device does not fit, k is even, or the backend is unknown.
        TypeError: the dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            "triton".

    Example:
        >>> x = torch.randn(1, 14, 14, 8)
        >>> depthwise_conv_silu(x, torch.randn(8, 1, 3, 3)).shape
        torch.Size([1, 14, 14, 8])

    Source: Liu et al., "VMamba" (arXiv 2401.10166), section 4.2: the operation before `ss2d` in a block.
    """
    op = "depthwise_conv_silu"
    x = under_autocast(x)
    signed = signature(op, x, weight, bias, backend)
    if has_passed(signed):
        return _depthwise_conv_silu_op.direct(x, weight, bias)
    check_dims(op, "x", x, 4, "(batch, height, width, channels)")
    check_float(op, "x", x)
    check_dims(op, "weight", weight, 4, "(channels, 1, k, k)")
    k = weight.shape[-1]
    check_shape(op, "weight", weight, (x.shape[3], 1, k, k), "(channels, 1, k, k)")
    if k % 2 == 0:
        raise ValueError(f"{op}: the kernel size must be odd, got {k}")
    if bias is not None:
        check_shape(op, "bias", bias, (x.shape[3],), "(channels)")
    check_device(op, x.device, weight=weight, bias=bias)
    chosen = resolve_backend(op, x.device, backend)
    if chosen == "reference":
        return depthwise_conv_silu_reference(x, weight, bias)
    if chosen == "torch":
        return depthwise_conv_silu_plain(x, weight, bias)
    if needs_grad(x, weight, bias):
        refuse_grad(op, chosen)
    y = _depthwise_conv_silu_op(x, weight, bias)
    passed(signed, x, weight, bias)
    return y


def _empty_product(x: Tensor, _: object, __: object, weight: Tensor, *___: object) -> Tensor:
    return torch.empty(*x.shape[:-1], weight.shape[0], dtype=x.dtype, device=x.device)


@operator("linear", fake=_empty_product)
def _linear_op(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    eps: float,
) -> Tensor:
    from vlmprof.kernels.block.fused_linear import linear_fused

    return linear_fused(x, norm_weight, norm_bias, weight, bias, residual, activation, eps)


@operator("norm_mlp", fake=like_the_first)
def _norm_mlp_op(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    eps: float,
) -> Tensor:
    from vlmprof.kernels.block.fused_mlp import norm_mlp_fused

    with torch.cuda.device_of(x):  # Triton launches on the current device
        return norm_mlp_fused(x, norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, eps)


@operator("depthwise_conv_silu", fake=like_the_first)
def _depthwise_conv_silu_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from vlmprof.kernels.block.fused_depthwise import depthwise_conv_silu_fused

    return depthwise_conv_silu_fused(x, weight, bias)


def _check_linear(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
) -> None:
    check_float(op, "x", x)
    check_dims(op, "weight", weight, 2, "(out_features, in_features)")
    out_features, in_features = weight.shape
    if x.dim() < 1 or x.shape[-1] != in_features:
        raise ValueError(f"{op}: x must be (..., in_features = {in_features}), got {tuple(x.shape)}")
    if bias is not None:
        check_shape(op, "bias", bias, (out_features,), "(out_features)")
    if residual is not None:
        check_shape(op, "residual", residual, (*x.shape[:-1], out_features), "(..., out_features)")
    check_activation(op, activation)
    check_device(op, x.device, weight=weight, bias=bias, residual=residual)


def check_activation(op: str, activation: str | None) -> None:
    """Raise ValueError for an unknown activation."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"{op}: unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)} or None")
