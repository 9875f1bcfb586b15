"""A GPU for Triton, emulated on the CPU: kernels are specialized, compiled and launched as on a real one, and
their PTX runs on the bytes of the tensors."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget

from tests.kernels.ptx.machine import Machine
from tests.kernels.ptx.memory import Memory

LARGEST_SHARED_BYTES = 232448
"""What a program may have on an H200."""


class EmulatedGpu:
    """Make it the active one of `triton.runtime.driver`, with `remember_ptx` as the hook that Triton calls
    when it has loaded a kernel. `capability` and `eager_copies` may be changed between launches."""

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability
        self.eager_copies = False
        self.launcher_cls = partial(_Launcher, self)
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": LARGEST_SHARED_BYTES},
            # module, function, registers, spills, threads at most; the function learns its PTX when loaded
            load_binary=lambda name, binary, shared, device: (object(), {}, 0, 0, 1024),
            unload_module=lambda module: None,
        )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        # Triton keeps what it has compiled by device
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def remember_ptx(
    module: object, function: dict[str, str], name: str, files: dict[str, str], key: str
) -> None:
    """Give a loaded function its PTX."""
    function["ptx"] = next(Path(path).read_text() for path in files.values() if str(path).endswith(".ptx"))


class _Launcher:
    """Called in the place of the compiled C function that launches a kernel."""

    def __init__(self, gpu: EmulatedGpu, source: Any, metadata: Any) -> None:
        self._gpu = gpu
        self._types = list(source.signature.values())
        self._metadata = metadata
        self._machines: dict[bool, Machine] = {}

    def __call__(
        self, width: int, height: int, depth: int, stream: int, function: dict[str, str], packed: object,
        launch: object, enter: Callable[..., None] | None, leave: Callable[..., None] | None, *arguments: Any,
    ) -> None:  # fmt: skip
        eager = self._gpu.eager_copies
        if eager not in self._machines:
            self._machines[eager] = Machine(
                function["ptx"], self._metadata.num_warps, self._metadata.shared, eager
            )
        machine = self._machines[eager]
        memory = Memory()
        values = [v for v, kind in zip(arguments, self._types, strict=True) if kind != "constexpr"]
        # views of one tensor are one place in memory
        tensors = {v.data_ptr(): v for v in values if isinstance(v, torch.Tensor)}
        addresses = {pointer: memory.place(_bytes(tensor)) for pointer, tensor in tensors.items()}
        parameters = [addresses[v.data_ptr()] if isinstance(v, torch.Tensor) else _word(v) for v in values]
        parameters += [0, 0]  # Triton's scratch memory, which nothing here asks for
        for z in range(depth):
            for y in range(height):
                for x in range(width):
                    machine.run(parameters, memory, (x, y, z))
        memory.write_back()


def _word(number: float) -> int:
    return struct.unpack("<I", struct.pack("<f", number))[0] if isinstance(number, float) else number


def _bytes(tensor: torch.Tensor) -> Any:
    assert tensor.is_contiguous()
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
