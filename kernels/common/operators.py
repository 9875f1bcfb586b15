"""Registration of the operations with torch, for `torch.compile`, CUDA graphs and profilers.

This uses the low-level interface of `torch.library`, because `custom_op` adds 5 µs of checks to each call, as
much as the rest of a small kernel's launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("vlmprof", "FRAGMENT")


class Operator:
    """A registered operator. Calls are dispatched by torch; `direct` is the function itself, for calls with a
    signature that has passed (`vlmprof.kernels.common.direct`)."""

    def __init__(self, direct: Callable[..., torch.Tensor], registered: Callable[..., torch.Tensor]) -> None:
        self.direct = direct
        self.registered = registered

    def __call__(self, *arguments: Any) -> torch.Tensor:
        """Call the operator through torch's dispatcher."""
        return self.registered(*arguments)


def operator(
    name: str, *, fake: Callable[..., torch.Tensor]
) -> Callable[[Callable[..., torch.Tensor]], Operator]:
    """Register a function as `vlmprof::name` for every device. It must not modify its inputs.

    The function runs with the first argument's device as the current one, where Triton launches. `fake`
    returns an empty tensor with the shape and dtype of the result for the same arguments. The result must not
    be an input or a view of one.
    """

    def register(function: Callable[..., torch.Tensor]) -> Operator:
        def on_its_device(x: torch.Tensor, *others: Any) -> torch.Tensor:
            with torch.cuda.device_of(x):
                return function(x, *others)

        LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=()))
        LIBRARY.impl(name, on_its_device, "CompositeExplicitAutograd")
        torch.library.register_fake(f"vlmprof::{name}", fake, lib=LIBRARY)
        return Operator(function, getattr(torch.ops.vlmprof, name).default)

    return register


def like_the_first(x: torch.Tensor, *_: object) -> torch.Tensor:
    """Return a fake result for operators whose result is contiguous and otherwise like the first argument."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


# computed once, because torch 2.11's compiler cannot trace the call
_AUTOCAST_DEVICES = tuple(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu") if torch.amp.is_autocast_available(kind)
)


def under_autocast(x: torch.Tensor) -> torch.Tensor:
    """Cast a float32 input to the autocast dtype if torch.autocast is enabled, as torch's products do."""
    kind = x.device.type
    if x.dtype != torch.float32 or kind not in _AUTOCAST_DEVICES:
        return x
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
