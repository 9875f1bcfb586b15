"""Selection of the implementation of an operation.

`reference` is the oracle: plain loops, any floating dtype, differentiable, slow.
`torch` is vectorized PyTorch and runs on any device. `triton` needs an NVIDIA GPU, or Triton's interpreter.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual

Backend = Literal["auto", "reference", "torch", "triton"]
"""The values of a `backend` argument."""
BACKENDS: tuple[str, ...] = get_args(Backend)

OPERATIONS = (
    "selective_scan",
    "cross_scan",
    "cross_merge",
    "ss2d",
    "norm_linear",
    "linear",
    "norm_mlp",
    "depthwise_conv_silu",
    "layer_norm",
    "convolution_norm",
)

FOUR_WARPS = {"num_warps": 4, "enable_fp_fusion": True}
"""Default compile options. Fused multiply-adds are enabled explicitly, because Triton's default depends on
its version."""

LOG2_E = math.log2(math.e)
"""exp(x) = exp2(LOG2_E · x), and exp2 is faster on every device."""

LEAST_CAPABILITY = (8, 0)
"""The compute capability that the kernels need: Ampere, which converts two numbers to 16 bits at once."""

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
"""Whether Triton is installed. Checked once, because torch.compile cannot trace the check."""


def triton_interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels, slowly, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=1)
def interpreter_fault() -> str | None:
    """Return why this Triton's interpreter cannot run with this NumPy, or None if it can.

    Up to 3.6, it converts arrays of one element to integers (`tensor.__index__`), which NumPy 2.4 rejects.
    """
    triton, numpy = (_release(package) for package in ("triton", "numpy"))
    if triton < (3, 7) and numpy >= (2, 4):
        return (
            "the interpreter of Triton 3.6 needs NumPy below 2.4 (pip install 'numpy<2.4' or 'triton>=3.7')"
        )
    return None


def _release(package: str) -> tuple[int, ...]:
    """Return the major and minor version of an installed package."""
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


def why_not_triton(device: torch.device) -> str | None:
    """Return why the `triton` backend cannot run on `device`, or None if it can.

    It can run on `meta`, where only shapes are computed.
    """
    if device.type == "meta":
        return None
    if not TRITON_INSTALLED:
        return "Triton is not installed (pip install triton)"
    if device.type == "cuda":
        return _why_not_this_gpu(device)
    if triton_interpreted():
        return interpreter_fault()
    return f"Triton compiles for GPUs and the tensors are on {device.type} (TRITON_INTERPRET=1 interprets it)"


def _why_not_this_gpu(device: torch.device) -> str | None:
    if torch.version.hip is not None:
        return "the kernels use instructions of NVIDIA GPUs, and this one is AMD's"
    if not torch.cuda.is_available():  # tensors without data
        return None
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) >= LEAST_CAPABILITY:
        return None
    least = ".".join(map(str, LEAST_CAPABILITY))
    return f"the kernels need compute capability {least}, and this GPU has {found.major}.{found.minor}"


def resolve_backend(op: str, device: torch.device | str, backend: str = "auto") -> str:
    """Return the backend that `op` uses on `device`. "auto" is `triton` where it can run, and else `torch`.

    Args:
        op: one of `OPERATIONS`.
        device: such as "cuda", "cuda:1" or "cpu".
        backend: one of `BACKENDS`.

    Returns:
        The name of the backend, to be recorded with its results.

    Raises:
        ValueError: the operation or backend is unknown.
        RuntimeError: the requested backend cannot run on the device; there is no fallback.

    Example:
        >>> resolve_backend("ss2d", "cpu")
        'torch'
    """
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation {op!r}; known: {', '.join(OPERATIONS)}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
    device = torch.device(device)
    if backend == "auto":
        return "triton" if device.type == "cuda" and why_not_triton(device) is None else "torch"
    if backend == "triton":
        reason = why_not_triton(device)
        if reason is not None:
            raise RuntimeError(f"{op}: backend 'triton' cannot run: {reason}")
    return backend


def needs_grad(*tensors: Tensor | None) -> bool:
    """Return whether autograd would record an operation on these tensors, or has tangents of them."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return True
    return forward_ad_is_on() and any(t is not None and unpack_dual(t).tangent is not None for t in tensors)


def forward_ad_is_on() -> bool:
    """Return whether forward-mode differentiation is under way, which `torch.no_grad` does not stop."""
    return forward_ad._current_level >= 0


def records_grad(op: str, backend: str, *tensors: Tensor | None) -> bool:
    """Return `needs_grad(*tensors)`. Raises RuntimeError if so and the backend is not the reference."""
    needed = needs_grad(*tensors)
    if needed and backend != "reference":
        raise RuntimeError(
            f"{op}: backend {backend!r} is inference only and an input requires grad; "
            "call it under torch.no_grad(), or use backend='reference', which is differentiable"
        )
    return needed


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of states and sums: float64 for float64, float32 for narrower dtypes."""
    return torch.float64 if dtype == torch.float64 else torch.float32
