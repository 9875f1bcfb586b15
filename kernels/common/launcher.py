"""Launch Triton kernels without repeating Triton's analysis of the arguments.

At every launch, Triton determines which compiled kernel matches the arguments. That takes three times as long
as the launch itself, and longer than the runtime of a small kernel. A `Launcher` does it once for each
combination of device, argument types and alignment.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

ALIGNMENT_BYTES = 16
"""Triton compiles a separate kernel for a pointer that is not a multiple of this."""

INT32_END = 1 << 31


class Launcher:
    """One kernel with its constants and compile options; called with the grid and the other arguments."""

    def __init__(self, kernel: Any, constants: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Create a launcher. Raises ValueError unless the constants are the kernel's last parameters."""
        names = kernel.arg_names[len(kernel.arg_names) - len(constants) :]
        if set(names) != set(constants):
            raise ValueError(f"the last parameters are {names}, the constants {list(constants)}")
        self._kernel = kernel
        self._named = {**constants, **options}
        self._constants = tuple(constants[name] for name in names)
        self._compiled: dict[Hashable, CompiledKernel] = {}

    def __call__(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        """Launch on the current device and stream, with tensors, integers and floats in the kernel's order.

        Raises ValueError for an integer that is not in the kernel's `do_not_specialize`, because the choice
        of the compiled kernel would depend on its value.
        """
        if not isinstance(self._kernel, JITFunction):  # interpreted
            self._kernel[grid](*arguments, **self._named)
            return
        key = _key(arguments)
        compiled = self._compiled.get(key)
        if compiled is not None:
            compiled[grid](*arguments, *self._constants)
            return
        for parameter, argument in zip(self._kernel.params, arguments, strict=False):
            if isinstance(argument, int) and not parameter.do_not_specialize:
                raise ValueError(f"{parameter.name} must be in the kernel's do_not_specialize")
        compiled = self._kernel[grid](*arguments, **self._named)
        if key is not None:
            self._compiled[key] = compiled


def _key(arguments: tuple[Any, ...]) -> Hashable:
    """Return the key of a compiled kernel, apart from its constants; None if Triton has to select it."""
    addresses = 0
    kinds: list[Hashable] = [driver.active, driver.active.get_current_device()]
    for argument in arguments:
        if isinstance(argument, Tensor):
            addresses |= argument.data_ptr()
            kinds.append(argument.dtype)
        elif isinstance(argument, int) and not -INT32_END <= argument < INT32_END:
            return None
    return tuple(kinds) if addresses % ALIGNMENT_BYTES == 0 else None
