"""Compile the kernels without a GPU and read registers, spills and instructions from the machine code.

`launch_variants` lists the launches that are compiled.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmprof.kernels.common.backends import TRITON_INSTALLED, triton_interpreted
from vlmprof.kernels.tools.launch_variants import Launch

ARCHITECTURES = {"sm_80": 80, "sm_90": 90, "sm_100": 100}

TILE_ELEMENTS_PER_LANE = 32
"""Positions × channels of a tile for each lane: what one turn of the loop computes."""


@dataclass(frozen=True)
class Compiled:
    """The machine code of one kernel, in numbers."""

    name: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_instructions: int
    shared_bytes: int
    instructions: int
    single_state: bool
    loop_instructions_per_element: tuple[float, ...]
    """Issue slots per (pixel, channel, direction), one for each direction; empty where not counted."""
    mix: Mapping[str, int] = field(default_factory=dict)
    """Instructions by operation, the most frequent first."""


def check_can_compile(architecture: str) -> None:
    """Raise ValueError for an unknown architecture, and RuntimeError without Triton or its disassembler."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    if not TRITON_INSTALLED:
        raise RuntimeError("inspecting kernels needs Triton (pip install triton)")
    if triton_interpreted():
        raise RuntimeError("TRITON_INTERPRET=1 replaces the compiler; unset it to inspect kernels")
    disassembler()


def compile_launch(launch: Launch, architecture: str) -> Compiled:
    """Compile one kernel. Raises as `check_can_compile`, and whatever Triton raises if compilation fails."""
    check_can_compile(architecture)
    import triton

    made = triton.compile(source(launch), target=target(architecture), options=dict(launch.options))
    assembly, usage = _disassemble(made.asm["cubin"])
    instructions = _instructions(assembly)
    operations = Counter(_operation(text) for _, text in instructions)
    loops = [len(body) / TILE_ELEMENTS_PER_LANE for body in _loops(instructions)]
    return Compiled(
        name=launch.name,
        architecture=architecture,
        registers=int(usage["REG"]),
        stack_bytes=int(usage["STACK"]),
        spill_instructions=operations["LDL"] + operations["STL"],
        shared_bytes=made.metadata.shared,
        instructions=len(instructions),
        single_state=launch.single_state,
        loop_instructions_per_element=tuple(loops) if launch.count_loop else (),
        mix=dict(operations.most_common()),
    )


def target(architecture: str) -> Any:
    """An architecture as Triton's compiler takes it."""
    from triton.backends.compiler import GPUTarget

    return GPUTarget("cuda", ARCHITECTURES[architecture], 32)


def source(launch: Launch) -> Any:
    """A launch as Triton's compiler takes it."""
    from triton.compiler import ASTSource

    names = launch.kernel.arg_names
    constants = {name: value for name, value in launch.constants.items() if name in names}
    signature = {name: "constexpr" if name in constants else launch.types[name] for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") and name not in launch.unaligned
    }
    return ASTSource(launch.kernel, signature, constants, aligned)


def spilling(compiled: list[Compiled]) -> list[Compiled]:
    """The d_state 1 kernels that spill registers, of which there should be none."""
    return [c for c in compiled if c.single_state and (c.spill_instructions or c.stack_bytes)]


def disassembler() -> str:
    """The path of cuobjdump. Raises RuntimeError where there is none."""
    import triton

    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    found = str(bundled) if bundled.exists() else shutil.which("cuobjdump")
    if found is None:
        raise RuntimeError("inspecting kernels needs cuobjdump, from Triton's wheel or from CUDA's toolkit")
    return found


def _disassemble(cubin: bytes) -> tuple[str, dict[str, str]]:
    """The machine code as text, and the assembler's resource figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        # killed together with this process, the disassembler leaves its own files behind
        environment = {**os.environ, "TMPDIR": folder}
        text, usage = (
            subprocess.run(
                [disassembler(), flag, path], capture_output=True, text=True, check=True, env=environment
            ).stdout
            for flag in ("-sass", "-res-usage")
        )
    return text, dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))


def _instructions(assembly: str) -> list[tuple[int, str]]:
    """(address, text) of each instruction."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", assembly)
    return [(int(address, 16), text.strip()) for address, text in found]


def _operation(text: str) -> str:
    """The operation's name without predicate and modifiers."""
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]


def _loops(instructions: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The bodies of the loops that are longer than a tile has elements, in the order of the code."""
    for address, text in instructions:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target.group(1), 16) < address:
            first = int(target.group(1), 16)
            body = [t for a, t in instructions if first <= a <= address]
            if len(body) > TILE_ELEMENTS_PER_LANE:
                yield body
