"""Registration of the operations with torch, for `torch.compile`, CUDA graphs and profilers.

This uses the low-level interface of `torch.library`, because `custom_op` adds 5 µs of checks to each call, as
much as the rest of a small kernel's launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

LIBRARY = torch.library.Library("vlmprof", "FRAGMENT")


SCHEMA_TYPES = {
    Tensor: "Tensor", Tensor | None: "Tensor?", str: "str", str | None: "str?",
    bool: "bool", int: "SymInt", float: "float",
}  # fmt: skip
"""torch's names of the types of arguments."""

Direct = Callable[..., Tensor]


class Operator:
    """A registered operator. Calls are dispatched by torch; `direct` is the function itself, for calls with a
    signature that has passed (`vlmprof.kernels.common.direct`)."""

    def __init__(self, direct: Direct, registered: Callable[..., Tensor]) -> None:
        self.direct = direct
        self.registered = registered

    def __call__(self, *arguments: Any) -> Tensor:
        """Call the operator through torch's dispatcher."""
        return self.registered(*arguments)

    def run(self, x: Tensor, bundle: Any, direct: bool) -> Tensor:
        """Run the operator with a bundle, directly or through torch's dispatcher."""
        return self.direct(x, bundle) if direct else self.registered(x, *bundle)


def operator(
    name: str, bundle: type[NamedTuple] | None = None, *, fake: Callable[..., Tensor]
) -> Callable[[Direct], Operator]:
    """Register a function as `vlmprof::name` for every device. It must not modify its inputs.

    The function runs with the first argument's device as the current one, where Triton launches. With a
    `bundle`, the function and `fake` take it as their second argument, and the operator takes its members
    instead, because schemas have no type for it. `fake` returns an empty tensor with the shape and dtype of
    the result for the same arguments. The result must not be an input or a view of one.
    """

    def flat(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if bundle is None:
            return function
        size = len(bundle._fields)
        return lambda x, *members: function(x, bundle(*members[:size]), *members[size:])

    def register(function: Direct) -> Operator:
        spread = flat(function)

        def on_its_device(x: Tensor, *others: Any) -> Tensor:
            with torch.cuda.device_of(x):
                return spread(x, *others)

        LIBRARY.define(name + _schema(function, bundle))
        LIBRARY.impl(name, on_its_device, "CompositeExplicitAutograd")
        torch.library.register_fake(f"vlmprof::{name}", flat(fake), lib=LIBRARY)
        return Operator(function, getattr(torch.ops.vlmprof, name).default)

    return register


def _schema(function: Direct, bundle: type[NamedTuple] | None) -> str:
    """Return the schema: the function's arguments by type, with a bundle's members instead of it."""
    types = get_type_hints(function)
    result = SCHEMA_TYPES[types.pop("return")]
    if bundle is not None:
        x, _, *others = types
        types = {x: types[x], **get_type_hints(bundle), **{name: types[name] for name in others}}
    arguments = ", ".join(f"{SCHEMA_TYPES[kind]} {name}" for name, kind in types.items())
    return f"({arguments}) -> {result}"


def like_the_first(x: Tensor, *_: object) -> Tensor:
    """Return a fake result for operators whose result is contiguous and otherwise like the first argument."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


# computed once, because torch 2.11's compiler cannot trace the call
_AUTOCAST_DEVICES = tuple(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu") if torch.amp.is_autocast_available(kind)
)


def under_autocast(x: Tensor) -> Tensor:
    """Cast a float32 input to the autocast dtype if torch.autocast is enabled, as torch's products do."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    kind = x.device.type
    if kind not in _AUTOCAST_DEVICES:
        return x
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
