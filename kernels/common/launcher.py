"""Launch Triton kernels without repeating Triton's analysis of the arguments.

At every launch, Triton determines which compiled kernel matches the arguments, and asks the driver about the
address of each tensor. That takes many times as long as the launch itself, and longer than the runtime of a
small kernel. A `Launcher` does it once for each combination of device, argument types and alignment.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import reduce
from operator import attrgetter, or_
from typing import Any

from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

ALIGNMENT_BYTES = 16
"""Triton compiles a separate kernel for a pointer that is not a multiple of this."""

INT32_END = 1 << 31

_address = Tensor.data_ptr
_dtype = attrgetter("dtype")


class Launcher:
    """One kernel with its constants and compile options; called with the grid and the other arguments."""

    def __init__(self, kernel: Any, constants: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Create a launcher. Raises ValueError unless the constants are the kernel's last parameters."""
        names = kernel.arg_names[len(kernel.arg_names) - len(constants) :]
        if set(names) != set(constants):
            raise ValueError(f"the last parameters are {names}, the constants {list(constants)}")
        self._kernel = kernel
        self._interpreted = not isinstance(kernel, JITFunction)
        self._named = {**constants, **options}
        self._constants = tuple(constants[name] for name in names)
        self._tensors = 0
        """Number of tensors, which come first."""
        self._compiled: dict[Hashable, CompiledKernel] = {}

    def __call__(self, grid: tuple[int, int, int], *arguments: Any) -> None:
        """Launch on the current device and stream, with tensors, integers and floats in the kernel's order.

        Tensors come first, all on one device, then at least one number, none below -2³¹. Raises ValueError
        for another order, and for an integer that is not in the kernel's `do_not_specialize`, because the
        choice of the compiled kernel would depend on its value.
        """
        if self._interpreted:
            self._kernel[grid](*arguments, **self._named)
            return
        tensors, numbers = arguments[: self._tensors], arguments[self._tensors :]
        gpu = driver.active
        device = gpu.get_current_device()
        addresses = tuple(map(_address, tensors))
        compiled = self._compiled.get((gpu, device, *map(_dtype, tensors)))
        if compiled is None or reduce(or_, addresses) % ALIGNMENT_BYTES or max(numbers) >= INT32_END:
            self._analysed(grid, arguments)
            return
        hooks = knobs.runtime
        if hooks.launch_enter_hook.calls or hooks.launch_exit_hook.calls:  # such as Triton's profiler
            compiled[grid](*arguments, *self._constants)
            return
        pointers = addresses if tensors[0].is_cuda else tensors
        compiled.run(
            *grid, gpu.get_current_stream(device), compiled.function, compiled.packed_metadata,
            None, None, None, *pointers, *numbers, *self._constants,
        )  # fmt: skip

    def _analysed(self, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Let Triton select or compile the kernel, and keep it for aligned tensors of these dtypes."""
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        numbers = arguments[len(tensors) :]
        if not tensors or not numbers or any(isinstance(number, Tensor) for number in numbers):
            raise ValueError("a kernel takes tensors, then numbers")
        for parameter, argument in zip(self._kernel.params, arguments, strict=False):
            if isinstance(argument, int) and not parameter.do_not_specialize:
                raise ValueError(f"{parameter.name} must be in the kernel's do_not_specialize")
        compiled = self._kernel[grid](*arguments, **self._named)
        if reduce(or_, map(_address, tensors)) % ALIGNMENT_BYTES or max(numbers) >= INT32_END:
            return
        self._tensors = len(tensors)
        self._compiled[driver.active, driver.active.get_current_device(), *map(_dtype, tensors)] = compiled
