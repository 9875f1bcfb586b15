"""What the assembler makes of the kernels, without a GPU."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")

from vlmprof.kernels import inspect as compiler

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_single_state_kernels_do_not_spill(dtype: torch.dtype) -> None:
    """VMamba's first level, whose kernels hold the most in registers; `inspect` walks the others too."""
    cases = [c for c in compiler.ss2d_cases(192, 6, dtype=dtype) if c.single_state]
    compiled = [compiler.compile_case(case, "sm_90") for case in cases]
    assert len(compiled) == 3  # the summary, the output by rows and by columns
    assert compiler.spilling(compiled) == []
    assert all(c.mix["MUFU"] > 0 and c.mix["HMMA"] > 0 for c in compiled)


@pytest.mark.slow
def test_the_loops_of_the_output_kernels_are_short() -> None:
    cases = [c for c in compiler.ss2d_cases(192, 6) if c.count_loop]
    loops = [n for c in cases for n in compiler.compile_case(c, "sm_90").loop_instructions_per_element]
    assert len(loops) == 4  # two directions by rows, two by columns
    assert sum(loops) / 4 <= 30.0


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="sm_75"):
        compiler.compile_case(next(iter(compiler.ss2d_cases(192, 6))), "sm_75")


def test_a_spill_is_found() -> None:
    clean = compiler.Compiled("a", "sm_90", 255, 0, 0, 0, 100, True, ())
    spilt = compiler.Compiled("b", "sm_90", 255, 16, 4, 0, 100, True, ())
    allowed = compiler.Compiled("c", "sm_90", 255, 16, 4, 0, 100, False, ())
    assert compiler.spilling([clean, spilt, allowed]) == [spilt]
