"""What the assembler makes of the kernels, without a GPU."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest
import torch

pytest.importorskip("triton")

from vlmprof.kernels import inspect as compiler
from vlmprof.kernels.launches import block_launches, selective_scan_launches, ss2d_launches

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
TRITON = tuple(int(part) for part in version("triton").split(".")[:2])


@pytest.mark.slow
@pytest.mark.skipif(TRITON < (3, 9), reason="older Triton spills a few registers at an image's edge")
@DTYPES
def test_single_state_kernels_do_not_spill(dtype: torch.dtype) -> None:
    """VMamba's first level, whose kernels hold the most in registers; `inspect` walks the others too."""
    launches = [launch for launch in ss2d_launches(192, 6, dtype=dtype) if launch.single_state]
    compiled = [compiler.compile_launch(launch, "sm_90") for launch in launches]
    assert len(compiled) == 3  # the summary, the output by rows and by columns
    assert compiler.spilling(compiled) == []
    assert all(c.mix["MUFU"] > 0 and c.mix["HMMA"] > 0 for c in compiled)


@pytest.mark.slow
def test_the_loops_of_the_output_kernels_are_short_and_do_not_spill() -> None:
    launches = [launch for launch in ss2d_launches(192, 6) if launch.count_loop]
    compiled = [compiler.compile_launch(launch, "sm_90") for launch in launches]
    loops = [n for c in compiled for n in c.loop_instructions_per_element]
    assert len(loops) == 4  # two directions by rows, two by columns
    assert sum(loops) / 4 <= 30.0
    assert all(c.spill_instructions == 0 for c in compiled)


@pytest.mark.slow
@DTYPES
def test_every_other_kernel_compiles_without_a_spill(dtype: torch.dtype) -> None:
    for launch in (*selective_scan_launches(16, dtype), *block_launches(96, dtype)):
        compiled = compiler.compile_launch(launch, "sm_90")
        assert compiled.spill_instructions == 0, compiled.name


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="sm_75"):
        compiler.compile_launch(next(iter(ss2d_launches(192, 6))), "sm_75")


def test_a_spill_is_found() -> None:
    clean = compiler.Compiled("a", "sm_90", 255, 0, 0, 0, 100, True, ())
    spilt = compiler.Compiled("b", "sm_90", 255, 16, 4, 0, 100, True, ())
    allowed = compiler.Compiled("c", "sm_90", 255, 16, 4, 0, 100, False, ())
    assert compiler.spilling([clean, spilt, allowed]) == [spilt]
