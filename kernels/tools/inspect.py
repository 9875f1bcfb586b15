"""Compile the kernels without a GPU and read registers, spills and instructions from the machine code.

`launch_variants` lists the launches to compile.
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

ARCHITECTURES = {"sm_80": 80, "sm_89": 89, "sm_90": 90, "sm_100": 100, "sm_120": 120}

TILE_ELEMENTS_PER_LANE = 64
"""Positions × channels × directions of a tile per lane: the work of one loop iteration."""


@dataclass(frozen=True)
class Compiled:
    """Statistics of the machine code of one kernel."""

    name: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_instructions: int
    shared_bytes: int
    instructions: int
    single_state: bool
    loop_instructions_per_element: tuple[float, ...]
    """Issue slots per (pixel, channel, direction), one for each direction; empty if not counted."""
    mix: Mapping[str, int] = field(default_factory=dict)
    """Instruction counts by operation, most frequent first."""


def check_can_compile(architecture: str) -> None:
    """Raise ValueError for an unknown architecture, and RuntimeError without Triton or a disassembler."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    if not TRITON_INSTALLED:
        raise RuntimeError("inspecting kernels needs Triton (pip install triton)")
    if triton_interpreted():
        raise RuntimeError("TRITON_INTERPRET=1 replaces the compiler; unset it to inspect kernels")
    disassembler()


def compile_launch(launch: Launch, architecture: str) -> Compiled:
    """Compile one kernel. Raises the errors of `check_can_compile` and those of Triton's compiler."""
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
    """Convert an architecture to Triton's representation."""
    from triton.backends.compiler import GPUTarget

    return GPUTarget("cuda", ARCHITECTURES[architecture], 32)


def source(launch: Launch) -> Any:
    """Convert a launch to Triton's representation."""
    from triton.compiler import ASTSource

    names = launch.kernel.arg_names
    signature = {name: "constexpr" if name in launch.constants else launch.types[name] for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") and name not in launch.unaligned
    }
    return ASTSource(launch.kernel, signature, launch.constants, aligned)


def spilling(compiled: list[Compiled]) -> list[Compiled]:
    """Return the d_state 1 kernels that spill registers; there should be none."""
    return [c for c in compiled if c.single_state and (c.spill_instructions or c.stack_bytes)]


def disassembler() -> str:
    """Return the path of cuobjdump. Raises RuntimeError if there is none."""
    import triton

    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    found = str(bundled) if bundled.exists() else shutil.which("cuobjdump")
    if found is None:
        raise RuntimeError("inspecting kernels needs cuobjdump, from Triton's wheel or the CUDA toolkit")
    return found


def _disassemble(cubin: bytes) -> tuple[str, dict[str, str]]:
    """Return the machine code as text, and the assembler's resource figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        # a disassembler killed together with this process leaves temporary files behind
        environment = {**os.environ, "TMPDIR": folder}
        text, usage = (
            subprocess.run(
                [disassembler(), flag, path], capture_output=True, text=True, check=True, env=environment
            ).stdout
            for flag in ("-sass", "-res-usage")
        )
    return text, dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))


def _instructions(assembly: str) -> list[tuple[int, str]]:
    """Return (address, text) of each instruction."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", assembly)
    return [(int(address, 16), text.strip()) for address, text in found]


def _operation(text: str) -> str:
    """Return the name of the operation without predicate and modifiers."""
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]


def _loops(instructions: list[tuple[int, str]]) -> Iterator[list[str]]:
    """Yield the loop bodies with more instructions than a tile has elements, in code order."""
    for address, text in instructions:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target.group(1), 16) < address:
            first = int(target.group(1), 16)
            body = [t for a, t in instructions if first <= a <= address]
            if len(body) > TILE_ELEMENTS_PER_LANE:
                yield body
