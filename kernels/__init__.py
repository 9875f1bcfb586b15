"""Triton kernels for the SS2D block of VMamba, with plain and vectorized PyTorch versions. Inference only.

Each operation has a `backend` argument: "reference", "torch", "triton", or "auto" for the fastest available.

Packed copies of parameters are cached until the parameters change. torch does not track writes through
`.data` or NumPy: write in place under `torch.no_grad()` instead.
"""

from vlmprof.kernels.block import (
    convolution_norm,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
)
from vlmprof.kernels.common.backends import BACKENDS, OPERATIONS, Backend, resolve_backend
from vlmprof.kernels.cross_scan import cross_merge, cross_scan
from vlmprof.kernels.selective_scan import selective_scan
from vlmprof.kernels.ss2d import ss2d

__all__ = [
    "BACKENDS",
    "OPERATIONS",
    "Backend",
    "convolution_norm",
    "cross_merge",
    "cross_scan",
    "depthwise_conv_silu",
    "layer_norm",
    "linear",
    "norm_linear",
    "norm_mlp",
    "resolve_backend",
    "selective_scan",
    "ss2d",
]
