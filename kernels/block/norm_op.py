"""`layer_norm` and `convolution_norm`: checks, choice of backend, registered operators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.block.op import check_activation
from vlmprof.kernels.block.plain import convolution_norm_plain, layer_norm_plain
from vlmprof.kernels.block.reference import convolution_norm_reference, layer_norm_reference
from vlmprof.kernels.common.backends import Backend, needs_grad, refuse_grad, resolve_backend
from vlmprof.kernels.common.checks import check_device, check_dims, check_float, check_shape
from vlmprof.kernels.common.operators import like_the_first, operator, under_autocast

MOST_TAPS, MOST_CHANNELS = 64, 192
"""Most values under a filter, and most filters, for one kernel that also convolves."""


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    input_bias: Tensor | None = None,
    activation: str | None = None,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> Tensor:
    """Compute activation(LayerNorm(x + input_bias)) over the last dimension, in one kernel with "triton".

    With the bias of the convolution before it as `input_bias`, that convolution needs no pass for its bias.

    Args:
        x: (..., channels), bfloat16, float16, float32 or float64.
        weight: (channels). bias: (channels), or None.
        input_bias: (channels), added to x first, or None.
        activation: "gelu" (by the error function), "silu" or None.
        eps: added to the variance.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        Same shape and dtype as x. The norm's statistics are float32 for every dtype of x; "reference" and
        "triton" round only the result.

    Raises:
        ValueError: a shape or device does not fit, or the activation or backend is unknown.
        TypeError: the dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            "triton".

    Example:
        >>> x = torch.randn(1, 56, 56, 48)
        >>> layer_norm(x, torch.ones(48), torch.zeros(48), activation="gelu").shape
        torch.Size([1, 56, 56, 48])

    Source: Ba et al., "Layer Normalization" (arXiv 1607.06450).
    """
    op = "layer_norm"
    check_float(op, "x", x)
    if x.dim() < 1 or 0 in x.shape:
        raise ValueError(f"{op}: x must be (..., channels), none of them 0; got {tuple(x.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias), ("input_bias", input_bias)):
        if tensor is not None:
            check_shape(op, name, tensor, x.shape[-1:], "(channels)")
    check_activation(op, activation)
    check_device(op, x.device, weight=weight, bias=bias, input_bias=input_bias)
    chosen = resolve_backend(op, x.device, backend)
    if chosen == "reference":
        return layer_norm_reference(x, weight, bias, input_bias, activation, eps)
    if chosen == "torch":
        return layer_norm_plain(x, weight, bias, input_bias, activation, eps)
    if needs_grad(x, weight, bias, input_bias):
        refuse_grad(op, chosen)
    return _layer_norm_op(x, weight, bias, input_bias, activation, eps)


def convolution_norm(
    x: Tensor,
    filters: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    input_bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    activation: str | None = None,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> Tensor:
    """Compute activation(LayerNorm(convolution of x + input_bias)), channels last.

    With "triton", it is one kernel for images: at most 64 values under a filter and 192 filters. For others,
    torch convolves, and `layer_norm` adds the bias.

    Args:
        x: (batch, height, width, in_channels), bfloat16, float16, float32 or float64.
        filters: (channels, in_channels, k, k), used in the dtype of x. stride, padding: of both axes.
        weight, bias, input_bias, activation, eps, backend: as in `layer_norm`.

    Returns:
        (batch, rows, columns, channels) in the dtype of x, contiguous.

    Raises:
        ValueError, TypeError, RuntimeError: as in `layer_norm`; the image is smaller than a filter.

    Example:
        >>> image, filters = torch.randn(1, 32, 48, 3), torch.randn(48, 3, 3, 3)
        >>> convolution_norm(image, filters, torch.ones(48), stride=2, padding=1, activation="gelu").shape
        torch.Size([1, 16, 24, 48])

    Source: Liu et al., "VMamba" (arXiv 2401.10166): the patch embedding and the down-sampling.
    """
    op = "convolution_norm"
    x = under_autocast(x)
    check_dims(op, "x", x, 4, "(batch, height, width, in_channels)")
    check_float(op, "x", x)
    check_dims(op, "filters", filters, 4, "(channels, in_channels, k, k)")
    channels, _, _, k = filters.shape
    check_shape(op, "filters", filters, (channels, x.shape[3], k, k), "(channels, in_channels, k, k)")
    if stride < 1 or padding < 0 or min(x.shape[1:3]) + 2 * padding < k:
        raise ValueError(f"{op}: no filter of {k} × {k} with stride {stride} fits {tuple(x.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias), ("input_bias", input_bias)):
        if tensor is not None:
            check_shape(op, name, tensor, (channels,), "(channels)")
    check_activation(op, activation)
    check_device(op, x.device, filters=filters, weight=weight, bias=bias, input_bias=input_bias)
    chosen = resolve_backend(op, x.device, backend)
    if chosen == "reference":
        return convolution_norm_reference(
            x, filters, weight, bias, input_bias, stride, padding, activation, eps
        )
    if chosen == "torch":
        return convolution_norm_plain(x, filters, weight, bias, input_bias, stride, padding, activation, eps)
    if needs_grad(x, filters, weight, bias, input_bias):
        refuse_grad(op, chosen)
    if filters[0].numel() <= MOST_TAPS and channels <= MOST_CHANNELS:
        return _convolution_norm_op(x, filters, weight, bias, input_bias, stride, padding, activation, eps)
    y = F.conv2d(x.permute(0, 3, 1, 2), filters.to(x.dtype), None, stride, padding)
    return _layer_norm_op(y.permute(0, 2, 3, 1), weight, bias, input_bias, activation, eps)


@operator("layer_norm", fake=like_the_first)
def _layer_norm_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_bias: Tensor | None,
    activation: str | None,
    eps: float,
) -> Tensor:
    from vlmprof.kernels.block.fused_norm import layer_norm_fused

    with torch.cuda.device_of(x):  # Triton launches on the current device
        return layer_norm_fused(x, weight, bias, input_bias, activation, eps)


def _empty_convolution(
    x: Tensor, filters: Tensor, _: object, __: object, ___: object, stride: int, padding: int, *____: object
) -> Tensor:
    channels, _, _, k = filters.shape
    rows, columns = ((side + 2 * padding - k) // stride + 1 for side in x.shape[1:3])
    return x.new_empty(x.shape[0], rows, columns, channels)


@operator("convolution_norm", fake=_empty_convolution)
def _convolution_norm_op(
    x: Tensor,
    filters: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_bias: Tensor | None,
    stride: int,
    padding: int,
    activation: str | None,
    eps: float,
) -> Tensor:
    from vlmprof.kernels.block.fused_stem import convolution_norm_fused

    with torch.cuda.device_of(x):  # Triton launches on the current device
        return convolution_norm_fused(x, filters, weight, bias, input_bias, stride, padding, activation, eps)
