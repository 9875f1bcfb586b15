"""Launch a Triton kernel without a GPU: compile it for one, and run its PTX on the tensors' bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import torch
import triton
from ptx_machine import Machine
from ptx_memory import Memory
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip

OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


class Compiled:
    """In the place of a kernel: `compiled[grid](*arguments, **constants)`, specialised as Triton would."""

    def __init__(self, kernel: Any, capability: int = 90) -> None:
        self._kernel = kernel
        self._target = GPUTarget("cuda", capability, 32)
        self._machines: dict[object, Machine] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            options = {name: value for name, value in named.items() if name in OPTIONS}
            constants = {name: value for name, value in named.items() if name not in OPTIONS}
            free = [parameter for parameter in self._kernel.params if parameter.name not in constants]
            memory = Memory()
            values = dict(zip([parameter.name for parameter in free], arguments, strict=True))
            # views of one tensor are one place in memory
            tensors = {v.data_ptr(): v for v in values.values() if isinstance(v, torch.Tensor)}
            addresses = {pointer: memory.place(_bytes(tensor)) for pointer, tensor in tensors.items()}
            machine, passed = self._machine(free, values, constants, options)
            given = (values[name] for name in passed)
            parameters = [addresses[v.data_ptr()] if isinstance(v, torch.Tensor) else _word(v) for v in given]
            parameters += [0, 0]  # Triton's scratch memory, which nothing here asks for
            for z in range(grid[2] if len(grid) > 2 else 1):
                for y in range(grid[1] if len(grid) > 1 else 1):
                    for x in range(grid[0]):
                        machine.run(parameters, memory, (x, y, z))
            memory.write_back()

        return launch

    def _machine(
        self, free: list[Any], values: dict[str, Any], constants: dict[str, Any], options: dict[str, Any]
    ) -> tuple[Machine, list[str]]:
        fixed, signature, hints = dict(constants), {}, {}
        for index, parameter in enumerate(self._kernel.params):
            name = parameter.name
            value = values.get(name)
            one = isinstance(value, int) and value == 1
            if name in constants or (one and not parameter.do_not_specialize):
                fixed.setdefault(name, value)
                signature[name] = "constexpr"
                continue
            pointer = isinstance(value, torch.Tensor)
            signature[name] = (
                POINTERS[value.dtype] if pointer else "fp32" if isinstance(value, float) else "i32"
            )
            unhinted = parameter.do_not_specialize_on_alignment or parameter.do_not_specialize
            if not unhinted and (pointer or (isinstance(value, int) and value % 16 == 0)):
                hints[(index,)] = [["tt.divisibility", 16]]
        key = (tuple(signature.items()), tuple((k, str(v)) for k, v in fixed.items()), tuple(hints))
        if key not in self._machines:
            source = ASTSource(self._kernel, signature, fixed, hints)
            made = triton.compile(source, target=self._target, options=options)
            self._machines[key] = Machine(made.asm["ptx"], options["num_warps"], made.metadata.shared)
        return self._machines[key], [p.name for p in free if signature[p.name] != "constexpr"]


def _word(number: float) -> int:
    return struct.unpack("<I", struct.pack("<f", number))[0] if isinstance(number, float) else number


def _bytes(tensor: torch.Tensor) -> Any:
    assert tensor.is_contiguous()
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
