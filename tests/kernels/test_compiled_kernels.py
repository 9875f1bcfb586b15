"""Machine code of the kernels, without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton

from vlmprof.kernels.block import linear_tiles, mlp_tiles
from vlmprof.kernels.block.fused_linear import kernel_for
from vlmprof.kernels.block.linear_kernels import Variant
from vlmprof.kernels.tools import inspect as compiler
from vlmprof.kernels.tools.launch_variants import (
    LEVELS,
    Launch,
    block_launches,
    carry_launches,
    mlp_launches,
    selective_scan_launches,
    ss2d_launches,
)

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)


@cache
def compiled_ss2d(d_inner: int, dt_rank: int, dtype: torch.dtype) -> list[compiler.Compiled]:
    """The kernels of one level, which two tests look at."""
    return [
        compiler.compile_launch(launch, "sm_90") for launch in ss2d_launches(d_inner, dt_rank, dtype=dtype)
    ]


def compiled_by_triton(launch: Launch, architecture: str) -> Any:
    """What `compile_launch` disassembles."""
    target = compiler.target(architecture)
    return triton.compile(compiler.source(launch), target=target, options=dict(launch.options))


BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32

ROOM_BYTES = {"sm_80": 163 << 10, "sm_89": 99 << 10, "sm_90": 227 << 10}
"""The most shared memory of a program: an A100, an RTX 4090 or L40S, an H100 or H200."""

LEFT_OUT = pytest.mark.exhaustive
"""A compilation that differs from one that always runs in its element type or width alone."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d_inner", "dt_rank", "dtype"),
    [
        pytest.param(*level, dtype, marks=marks, id=f"{level[0]}-{level[1]}-{dtype}")
        for level, dtype, marks in (
            # float32 computes the widest dt_proj slice by slice; all the others compute it at once
            (LEVELS[0], BF16, ()),
            (LEVELS[-1], BF16, ()),
            (LEVELS[-1], FP32, ()),
            (LEVELS[0], FP16, (LEFT_OUT,)),
            (LEVELS[-1], FP16, (LEFT_OUT,)),
            (LEVELS[0], FP32, (LEFT_OUT,)),
        )
    ],
)
def test_single_state_kernels_do_not_spill(d_inner: int, dt_rank: int, dtype: torch.dtype) -> None:
    """VMamba-T's first level, and the widest, VMamba-B's fourth; `inspect` walks those between too."""
    compiled = compiled_ss2d(d_inner, dt_rank, dtype)
    assert len(compiled) == 6  # the summary, the output by rows and by columns, with edges and without
    assert compiler.spilling(compiled) == []
    assert all(c.mix["MUFU"] > 0 and c.mix["HMMA"] > 0 for c in compiled)
    # a scan or sum whose positions are spread over lanes would shuffle
    assert all("SHFL" not in c.mix for c in compiled)


@pytest.mark.slow
@pytest.mark.parametrize(("d_inner", "dt_rank"), [LEVELS[0], LEVELS[-1]])
def test_the_loops_of_the_output_kernels_are_short_and_do_not_spill(d_inner: int, dt_rank: int) -> None:
    """The shortest and the longest, whose weights no longer fit in registers."""
    compiled = [c for c in compiled_ss2d(d_inner, dt_rank, BF16) if c.loop_instructions_per_element]
    loops = [n for c in compiled for n in c.loop_instructions_per_element]
    assert len(loops) == 4  # two directions each: two loops in the summary, one by rows, one by columns
    assert max(loops) <= 30.0
    assert all(c.spill_instructions == 0 for c in compiled)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [BF16, FP32, pytest.param(FP16, marks=LEFT_OUT)], ids=str)
def test_every_other_kernel_compiles_without_a_spill(dtype: torch.dtype, tmp_path: Path) -> None:
    """A kernel without local memory cannot spill; the others are disassembled, which takes longer."""
    cubin = tmp_path / "kernel.cubin"
    for launch in (*selective_scan_launches(16, dtype), *carry_launches(16), *block_launches(96, dtype)):
        cubin.write_bytes(compiled_by_triton(launch, "sm_90").asm["cubin"])
        command = [compiler.disassembler(), "-res-usage", str(cubin)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", usage) is None:
            assert compiler.compile_launch(launch, "sm_90").spill_instructions == 0, launch.name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ROOM_BYTES)
def test_tiles_are_offered_only_where_their_shared_memory_fits(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = ROOM_BYTES[architecture]
    monkeypatch.setattr(linear_tiles, "shared_limit_bytes", lambda device: room)
    for depth, kept in (
        (192, 3 if architecture == "sm_89" else 4),
        (384, {"sm_80": 3, "sm_89": 0, "sm_90": 4}[architecture]),
    ):
        product = linear_tiles.Product(1 << 20, depth, 512, False, False, torch.bfloat16)
        tiles = linear_tiles.candidates(product, torch.device("cpu"))
        assert len([tile for tile in tiles if not tile.depth]) == kept
        assert linear_tiles.tile_for(product, torch.device("cpu")) in tiles
        for tile in tiles:
            kernel, constants = kernel_for(tile, Variant(depth, 512))
            types = dict.fromkeys(kernel.arg_names, "*bf16") | {"offset_ptr": "*fp32", "eps": "fp32"}
            types |= dict.fromkeys(("rows", "blocks"), "i32")
            launch = Launch(tile.label(), kernel, types, constants, tile.options())
            assert compiled_by_triton(launch, architecture).metadata.shared <= room


@pytest.mark.slow
@pytest.mark.parametrize("channels", mlp_tiles.PIECES)
def test_tiles_of_an_mlp_fit_on_gpus_with_less_shared_memory(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An RTX 3090, 4090 or 5090, an A10 or L40S has 99 KB for a program."""
    monkeypatch.setattr(mlp_tiles, "shared_limit_bytes", lambda device: ROOM_BYTES["sm_89"])
    chosen = {mlp_tiles.tile_for(rows, channels, torch.device("cpu")) for rows in (32 * channels, 1 << 20)}
    assert len(chosen) == (1 if channels == 256 else 2)
    candidates = zip(mlp_tiles.CANDIDATES[channels], mlp_tiles.SHARED_KB[channels], strict=True)
    for launch, (tile, shared_kb) in zip(mlp_launches(channels, BF16), candidates, strict=True):
        if tile in chosen:
            taken = compiled_by_triton(launch, "sm_89").metadata.shared
            assert taken <= shared_kb << 10 <= ROOM_BYTES["sm_89"], launch.name


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="sm_75"):
        compiler.compile_launch(next(iter(ss2d_launches(192, 6))), "sm_75")


def test_a_spill_is_found() -> None:
    clean = compiler.Compiled("a", "sm_90", 255, 0, 0, 0, 100, True, ())
    spilt = compiler.Compiled("b", "sm_90", 255, 16, 4, 0, 100, True, ())
    allowed = compiler.Compiled("c", "sm_90", 255, 16, 4, 0, 100, False, ())
    assert compiler.spilling([clean, spilt, allowed]) == [spilt]
