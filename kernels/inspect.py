"""Compile the kernels without a GPU and read what the assembler made: registers, spills, instructions.

Each kernel is compiled as it is launched: the same constants, the same alignment of its pointers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vlmprof.kernels.backends import triton_installed, triton_interpreted

ARCHITECTURES = {"sm_80": 80, "sm_90": 90, "sm_100": 100}

LEVELS = ((192, 6), (384, 12), (768, 24), (1536, 48))
"""d_inner and dt_rank of VMamba-T's and -S's levels."""

TILE_ELEMENTS_PER_LANE = 32
"""Positions × channels of a tile for each lane: what one turn of the loop computes."""


@dataclass(frozen=True)
class Case:
    """One kernel with the constants and argument types of one launch."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, Any]
    unaligned: frozenset[str] = frozenset()
    single_state: bool = False
    """A d_state 1 kernel of ss2d that is launched: one that may not spill."""
    count_loop: bool = False
    """Its loops hold the interior path alone, so that their length means something."""


@dataclass(frozen=True)
class Compiled:
    """What the assembler made of a kernel."""

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


def ss2d_cases(
    d_inner: int, dt_rank: int, d_state: int = 1, dtype: torch.dtype = torch.bfloat16
) -> list[Case]:
    """The kernels of `ss2d` for one level."""
    from vlmprof.kernels.ss2d import many_states, single_state
    from vlmprof.kernels.ss2d.fused import COMPILE_OPTIONS, ELEMENTS
    from vlmprof.kernels.ss2d.packing import block_shape

    element = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    word = "*i64" if dtype == torch.float32 else "*i32"
    types = dict.fromkeys(("bias_ptr", "a_ptr", "skip_ptr", "sum_ptr", "end_ptr", "entering_ptr"), "*fp32")
    types |= dict.fromkeys(("p_ptr", "weight_ptr"), "*" + element)
    types |= {"x_ptr": word, "bc_ptr": word, "out_ptr": word, "y_ptr": "*i64"}
    types |= dict.fromkeys(single_state.SIZES, "i32")
    block, rank = block_shape(dt_rank, d_state)
    constants = {"D": d_inner, "KW": block, "RANK": rank, "ELEMENT": ELEMENTS[dtype], "LOW": False}
    where = f"d{d_inner} r{dt_rank} n{d_state} {element}"
    unaligned = frozenset(single_state.UNALIGNED)

    def case(name: str, kernel: Any, count: bool = False, **more: Any) -> Case:
        return Case(
            f"ss2d.{name} {where}", kernel, types, constants | more, COMPILE_OPTIONS, unaligned,
            single_state=d_state == 1 and not count, count_loop=count,
        )  # fmt: skip

    if d_state > 1:
        return [
            case("summary k1", many_states.summary_kernel, K=1, N=d_state),
            case("output k1", many_states.output_kernel, K=1, N=d_state),
        ]
    cases = [case("summary", single_state.summary_kernel)]
    for columns, name in enumerate(("rows", "columns")):
        output = single_state.output_kernel
        cases.append(case(f"output {name}", output, COLUMNS=columns, GENERAL=True))
        cases.append(case(f"output {name}, interior", output, True, COLUMNS=columns, GENERAL=False))
    return cases


def all_cases() -> Iterator[Case]:
    """The kernels of the four levels in bfloat16, the first in the other dtypes, and d_state 16."""
    for d_inner, dt_rank in LEVELS:
        yield from ss2d_cases(d_inner, dt_rank)
    for dtype in (torch.float16, torch.float32):
        yield from ss2d_cases(*LEVELS[0], dtype=dtype)
    yield from ss2d_cases(*LEVELS[0], d_state=16)


def compile_case(case: Case, architecture: str) -> Compiled:
    """Compile one kernel. Raises ValueError for an unknown architecture, RuntimeError without Triton."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    if not triton_installed():
        raise RuntimeError("inspecting kernels needs Triton (pip install triton)")
    if triton_interpreted():
        raise RuntimeError("TRITON_INTERPRET=1 replaces the compiler; unset it to inspect kernels")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    constants = {name: value for name, value in case.constants.items() if name in names}
    signature = {name: "constexpr" if name in constants else case.types[name] for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") and name not in case.unaligned
    }
    source = ASTSource(case.kernel, signature, constants, aligned)
    target = GPUTarget("cuda", ARCHITECTURES[architecture], 32)
    made = triton.compile(source, target=target, options=dict(case.options))
    assembly, usage = _disassemble(made.asm["cubin"])
    instructions = _instructions(assembly)
    operations = Counter(_operation(text) for _, text in instructions)
    loops = [len(body) / TILE_ELEMENTS_PER_LANE for body in _loops(instructions)]
    return Compiled(
        name=case.name,
        architecture=architecture,
        registers=int(usage["REG"]),
        stack_bytes=int(usage["STACK"]),
        spill_instructions=operations["LDL"] + operations["STL"],
        shared_bytes=made.metadata.shared,
        instructions=len(instructions),
        single_state=case.single_state,
        loop_instructions_per_element=tuple(loops) if case.count_loop else (),
        mix=dict(operations.most_common()),
    )


def spilling(compiled: list[Compiled]) -> list[Compiled]:
    """The d_state 1 kernels that spill registers, of which there should be none."""
    return [c for c in compiled if c.single_state and (c.spill_instructions or c.stack_bytes)]


def _tool() -> str:
    import triton

    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    found = str(bundled) if bundled.exists() else shutil.which("cuobjdump")
    if found is None:
        raise RuntimeError("inspecting kernels needs cuobjdump, from Triton's wheel or from CUDA's toolkit")
    return found


def _disassemble(cubin: bytes) -> tuple[str, dict[str, str]]:
    """The machine code as text, and the assembler's resource figures."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text, usage = (
            subprocess.run([_tool(), flag, file.name], capture_output=True, text=True, check=True).stdout
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
