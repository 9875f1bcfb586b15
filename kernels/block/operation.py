"""The path of a call of a block's operation, from the public function to plain code or a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype, records_grad, resolve_backend
from vlmprof.kernels.common.direct import has_passed, passed, signature

Arguments = TypeVar("Arguments", bound=Any)
"""A bundle of `block.arguments`."""


@dataclass(frozen=True)
class Operation(Generic[Arguments]):
    """An operation of x and a bundle of arguments."""

    name: str
    plain: Callable[[Tensor, Arguments], Tensor]
    """The `torch` backend; run with wider inputs, also the `reference`."""
    kernels: Callable[[Tensor, Arguments, bool], Tensor]
    """The `triton` backend; a direct call skips torch's dispatcher."""

    def __call__(self, x: Tensor, arguments: Arguments, backend: str) -> Tensor:
        """Check the arguments and compute the operation on the chosen backend.

        A call like one that has passed skips the checks and torch's dispatcher, see `common.direct`.
        """
        signed = signature(self.name, x, *arguments, backend)
        if has_passed(signed):
            return self.kernels(x, arguments, True)
        arguments.check(self.name, x)
        chosen = resolve_backend(self.name, x.device, backend)
        if chosen == "reference":
            return reference(self.plain, x, arguments)
        if chosen == "torch":
            return self.plain(x, arguments)
        tensors = [x, *(member for member in arguments if isinstance(member, Tensor))]
        records_grad(self.name, chosen, *tensors)
        y = self.kernels(x, arguments, False)
        passed(signed, *tensors)
        return y


def reference(plain: Callable[[Tensor, Arguments], Tensor], x: Tensor, arguments: Arguments) -> Tensor:
    """Compute plain code in float32 (float64 for float64) and round its result once: the oracle."""
    wide = type(arguments)(*map(_widened, arguments))
    return plain(_widened(x), wide).to(x.dtype)


def _widened(argument: Any) -> Any:
    return argument.to(compute_dtype(argument.dtype)) if isinstance(argument, Tensor) else argument
