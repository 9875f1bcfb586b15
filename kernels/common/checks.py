"""Argument checks shared by the operations, with one-line error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def check_shape(op: str, name: str, tensor: Tensor | None, shape: Sequence[int], meaning: str) -> None:
    """Raise ValueError unless `tensor` has `shape`, described by `meaning`, or is an omitted one, None."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} must be {meaning} = {tuple(shape)}, got {tuple(tensor.shape)}")


def check_dims(op: str, name: str, tensor: Tensor, dims: int, meaning: str) -> None:
    """Raise ValueError unless `tensor` has `dims` dimensions, none of them empty."""
    if tensor.dim() != dims or 0 in tensor.shape:
        raise ValueError(f"{op}: {name} must be {meaning}, none of them 0; got {tuple(tensor.shape)}")


def check_tensors(op: str, given: Mapping[str, object], optional: Mapping[str, object] = {}) -> None:
    """Check tensors by name, the input first; `optional` ones may be None.

    Raises TypeError unless all are dense and floating, and ValueError unless they are on the input's device.
    """
    device = None
    for name, value in (*given.items(), *optional.items()):
        if value is None and name in optional:
            continue
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{op}: {name} must be a dense tensor, got {kind}")
        if value.dtype not in FLOATS:
            raise TypeError(f"{op}: {name} must be bfloat16, float16, float32 or float64, got {value.dtype}")
        device = device or value.device
        if value.device != device:
            raise ValueError(f"{op}: {name} is on {value.device}, the input is on {device}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
