"""`layer_norm` and `convolution_norm`: public functions and registered operators."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.block.arguments import ConvolutionNormArguments, LayerNormArguments
from vlmprof.kernels.block.operation import Operation
from vlmprof.kernels.block.plain import convolution_norm_plain, layer_norm_plain
from vlmprof.kernels.common.backends import Backend
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
        ValueError, TypeError, RuntimeError: as in `norm_linear`.

    Example:
        >>> x = torch.randn(1, 56, 56, 48)
        >>> layer_norm(x, torch.ones(48), torch.zeros(48), activation="gelu").shape
        torch.Size([1, 56, 56, 48])

    Source: Ba et al., "Layer Normalization" (arXiv 1607.06450).
    """
    return _layer_norm(x, LayerNormArguments(weight, bias, input_bias, activation, eps), backend)


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
    arguments = ConvolutionNormArguments(filters, weight, bias, input_bias, stride, padding, activation, eps)
    return _convolution_norm(under_autocast(x), arguments, backend)


@operator("layer_norm", LayerNormArguments, fake=like_the_first)
def _layer_norm_op(x: Tensor, arguments: LayerNormArguments) -> Tensor:
    from vlmprof.kernels.block.fused_norm import layer_norm_fused

    return layer_norm_fused(x, arguments)


def _empty_convolution(x: Tensor, arguments: ConvolutionNormArguments) -> Tensor:
    return x.new_empty(arguments.size_of_result(x))


@operator("convolution_norm", ConvolutionNormArguments, fake=_empty_convolution)
def _convolution_norm_op(x: Tensor, arguments: ConvolutionNormArguments) -> Tensor:
    from vlmprof.kernels.block.fused_stem import convolution_norm_fused

    return convolution_norm_fused(x, arguments)


def _convolution_kernels(x: Tensor, arguments: ConvolutionNormArguments, direct: bool) -> Tensor:
    """Compute both in one kernel for images. For others, torch convolves, and the norm adds the bias."""
    channels, in_channels, height, width = arguments.filters.shape
    if in_channels * height * width <= MOST_TAPS and channels <= MOST_CHANNELS:
        return _convolution_norm_op.run(x, arguments, direct)
    filters = arguments.filters.to(x.dtype)
    y = F.conv2d(x.permute(0, 3, 1, 2), filters, None, arguments.stride, arguments.padding)
    return _layer_norm_op.run(y.permute(0, 2, 3, 1), arguments.norm(), direct)


_layer_norm = Operation("layer_norm", layer_norm_plain, _layer_norm_op.run)
_convolution_norm = Operation("convolution_norm", convolution_norm_plain, _convolution_kernels)
