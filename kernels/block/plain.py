"""The block operations in plain PyTorch, every step in the dtype of x: the `torch` backend.

x and results have shapes as in `op` and `norm_op`, and any floating dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.block.arguments import (
    ConvolutionNormArguments,
    DepthwiseArguments,
    LayerNormArguments,
    LinearArguments,
    MlpArguments,
)
from vlmprof.kernels.common.backends import compute_dtype, needs_grad

ONEDNN_NAMES = {None: "none", "gelu": "gelu", "silu": "swish"}
"""oneDNN's names of the activations; its gelu with algorithm "none" is exact."""


def linear_plain(x: Tensor, linear: LinearArguments) -> Tensor:
    """Compute `norm_linear`, or `linear` without norm_weight: x (..., in_features) -> (..., out_features)."""
    if linear.norm_weight is not None:
        x = _norm(x, linear.norm_weight, linear.norm_bias, linear.eps)
    y = product(x, linear.weight, linear.bias, linear.activation)
    if linear.residual is None:
        return y
    if needs_grad(y, linear.residual):
        return (y + linear.residual).to(x.dtype)
    return y.add_(linear.residual)


def norm_mlp_plain(x: Tensor, mlp: MlpArguments) -> Tensor:
    """Compute `norm_mlp`: x (..., channels) -> the same shape."""
    return linear_plain(linear_plain(x, mlp.first()), mlp.second(x))


def depthwise_conv_silu_plain(x: Tensor, convolution: DepthwiseArguments) -> Tensor:
    """Compute `depthwise_conv_silu`: x (batch, height, width, channels) -> the same shape."""
    weight, bias = convolution
    y = F.conv2d(
        x.permute(0, 3, 1, 2), weight.to(x.dtype), _cast(bias, x.dtype),
        padding=weight.shape[-1] // 2, groups=weight.shape[0],
    )  # fmt: skip
    return F.silu(y, inplace=not y.requires_grad).permute(0, 2, 3, 1).contiguous()


def layer_norm_plain(x: Tensor, norm: LayerNormArguments) -> Tensor:
    """Compute `layer_norm`: x (..., channels) -> the same shape."""
    if norm.input_bias is not None:
        x = x + norm.input_bias.to(x.dtype)
    return _activate(_norm(x, norm.weight, norm.bias, norm.eps), norm.activation).to(x.dtype)


def convolution_norm_plain(x: Tensor, convolution: ConvolutionNormArguments) -> Tensor:
    """Compute `convolution_norm`: (batch, height, width, in_channels) -> (batch, rows, columns, channels)."""
    input_bias = _cast(convolution.input_bias, x.dtype)
    y = F.conv2d(
        x.permute(0, 3, 1, 2), convolution.filters.to(x.dtype), input_bias,
        convolution.stride, convolution.padding,
    )  # fmt: skip
    norm = convolution.norm()._replace(input_bias=None)
    return layer_norm_plain(y.permute(0, 2, 3, 1), norm).contiguous()


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
    """Compute activation(x · weightᵀ + bias): x (..., in_features) -> (..., out_features)."""
    weight, bias = weight.to(x.dtype), _cast(bias, x.dtype)
    if onednn_multiplies(x, weight, bias):
        bias = None if bias is None else bias.contiguous()  # oneDNN ignores its stride
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, ONEDNN_NAMES[activation], [], "none" if activation == "gelu" else ""
        )
        return y
    return _activate(F.linear(x, weight, bias), activation)


def onednn_multiplies(x: Tensor, *others: Tensor | None) -> bool:
    """Return whether oneDNN's matrix product is faster: for float32 on a CPU, without autograd.

    torch uses MKL for float32 products, which uses only half of the vector width of AMD CPUs.
    """
    return (
        x.device.type == "cpu"
        and all(t is None or t.dtype == torch.float32 for t in (x, *others))
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not needs_grad(x, *others)
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _activate(x: Tensor, activation: str | None) -> Tensor:
    """Apply `gelu` (exact), `silu` or None; in place unless autograd needs x."""
    if activation == "gelu":
        return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)
    return F.silu(x, inplace=not x.requires_grad) if activation == "silu" else x


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Apply layer norm to x (..., features), in float32 if its parameters and x differ in dtype."""
    if weight.dtype == x.dtype and (bias is None or bias.dtype == x.dtype):
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    dtype = compute_dtype(x.dtype)
    return F.layer_norm(x.to(dtype), weight.shape, weight.to(dtype), _cast(bias, dtype), eps).to(x.dtype)


def _cast(vector: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if vector is None else vector.to(dtype)
