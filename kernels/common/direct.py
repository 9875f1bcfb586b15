"""Calls of operators without torch's dispatcher and without repeated checks, for short host times.

On a GPU, an operation on few pixels takes less time than its checks and its dispatch. A direct call skips
both if the same operation has passed its checks with the same dtypes, shapes and options, and if nothing
takes part in the dispatch: no compiler, transform, profiler or counter, and no autograd.
"""

from __future__ import annotations

from collections.abc import Hashable
from operator import attrgetter

import torch
from torch import _C, Tensor

from vlmprof.kernels.common.backends import forward_ad_is_on

MOST_SIGNATURES = 4096
"""Signatures in memory at once: those of many encoders at many resolutions."""

_described = attrgetter("shape", "dtype", "device")
_PLAIN = (Tensor, torch.nn.Parameter)
_passed: set[Hashable] = set()


def signature(op: str, x: Tensor, *arguments: object) -> Hashable:
    """Return what the checks of a call depend on, or None if the call has to be dispatched."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not isinstance(x, Tensor):
        return None
    if not x.is_cuda or forward_ad_is_on() or _is_observed():
        return None
    if x.get_device() != _C._cuda_getDevice():  # Triton launches on the current device
        return None
    # a tensor of another class stands for itself: `passed` accepts none of them
    return (op, _described(x), type(x), *[_described(a) if type(a) in _PLAIN else a for a in arguments])


def has_passed(signature: Hashable) -> bool:
    """Return whether arguments with this signature have passed the checks for a kernel."""
    try:
        return signature in _passed
    except TypeError:  # not hashable, such as a list instead of a tensor, which the checks will refuse
        return False


def passed(signature: Hashable, *tensors: Tensor | None) -> None:
    """Remember that these arguments have passed the checks for a kernel, unless a tensor is of a subclass."""
    if signature is None or any(type(t) not in _PLAIN for t in tensors if t is not None):
        return
    if len(_passed) >= MOST_SIGNATURES:
        _passed.clear()
    _passed.add(signature)


def _is_observed() -> bool:
    """Return whether a mode, a transform or a profiler takes part in the dispatch of operators."""
    return bool(
        _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or _C._autograd._profiler_enabled()
        or _C._functorch.peek_interpreter_stack() is not None
    )
