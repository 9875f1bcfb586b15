"""The block operations in plain PyTorch, every step in the dtype of x: the `torch` backend.

Shapes and sources as in `op`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype, needs_grad

ACTIVATIONS = ("gelu", "silu")

ONEDNN_NAMES = {None: "none", "gelu": "gelu", "silu": "swish"}
"""oneDNN's names of the activations; its gelu with algorithm "none" is exact."""


def activate_(x: Tensor, activation: str | None) -> Tensor:
    """Apply `gelu` (exact), `silu` or None to x of any shape; in place unless autograd needs x."""
    if activation == "gelu":
        return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)
    return F.silu(x, inplace=not x.requires_grad) if activation == "silu" else x


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Apply layer norm to x (..., features), in float32 if weight and x differ in dtype."""
    if weight.dtype == x.dtype:
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    dtype = compute_dtype(x.dtype)
    bias = None if bias is None else bias.to(dtype)
    return F.layer_norm(x.to(dtype), weight.shape, weight.to(dtype), bias, eps).to(x.dtype)


def layer_norm_plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_bias: Tensor | None = None,
    activation: str | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Compute `layer_norm`: x (..., channels) -> the same shape and dtype."""
    if input_bias is not None:
        x = x + input_bias.to(x.dtype)
    return activate_(layer_norm(x, weight, bias, eps), activation).to(x.dtype)


def convolution_norm_plain(
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
    """Compute `convolution_norm`: (batch, height, width, in_channels) -> (batch, rows, columns, channels)."""
    input_bias = None if input_bias is None else input_bias.to(x.dtype)
    y = F.conv2d(x.permute(0, 3, 1, 2), filters.to(x.dtype), input_bias, stride, padding)
    return layer_norm_plain(y.permute(0, 2, 3, 1), weight, bias, None, activation, eps).contiguous()


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


def linear_plain(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    activation: str | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Compute `norm_linear`, or `linear` without norm_weight: x (..., in_features) -> (..., out_features).

    Any floating dtype; the result has that of x.
    """
    if norm_weight is not None:
        x = layer_norm(x, norm_weight, norm_bias, eps)
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if onednn_multiplies(x, weight, bias):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, ONEDNN_NAMES[activation], [], "none" if activation == "gelu" else ""
        )
        return y if residual is None else y.add_(residual)
    y = activate_(F.linear(x, weight, bias), activation)
    if residual is None:
        return y
    return y + residual if y.requires_grad or residual.requires_grad else y.add_(residual)


def norm_mlp_plain(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute `norm_mlp`: x (..., channels) -> the same shape and dtype."""
    hidden = linear_plain(x, norm_weight, norm_bias, fc1_weight, fc1_bias, None, "gelu", eps)
    return linear_plain(hidden, None, None, fc2_weight, fc2_bias, x)


def depthwise_conv_silu_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `depthwise_conv_silu`: x (batch, height, width, channels) -> the same shape and dtype."""
    bias = None if bias is None else bias.to(x.dtype)
    channels_first = x.permute(0, 3, 1, 2)
    y = F.conv2d(
        channels_first, weight.to(x.dtype), bias, padding=weight.shape[-1] // 2, groups=weight.shape[0]
    )
    return F.silu(y, inplace=not y.requires_grad).permute(0, 2, 3, 1).contiguous()
