"""Results of the compiled kernels against float64, without a GPU: their PTX runs on the CPU.

The interpreter runs the kernels' source. This test runs the code that Triton generates for an H200,
specialized for the arguments as on the GPU: layouts, alignment, inline assembly, tensor-core fragments, and
matrix products of four warps with operands in shared memory. The branches of GELU's error function are not
emulated.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import triton
import triton.language as tl
from triton import knobs
from triton.runtime import driver

from tests.kernels.ptx.emulated_gpu import EmulatedGpu, remember_ptx
from tests.kernels.ptx.memory import Memory
from vlmprof.kernels.block import fused_linear, linear_tiles
from vlmprof.kernels.block.linear_tiles import KEPT, KEPT_FEW, KEPT_LOW, LARGE, LARGEST, SMALL, WIDE, Tile
from vlmprof.kernels.common import backends
from vlmprof.kernels.common.device_math import gelu
from vlmprof.kernels.ss2d import chunks
from vlmprof.kernels.tools import block_cases, cases, verify


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    monkeypatch.setattr(backends, "why_not_triton", lambda device: None)
    monkeypatch.setattr(driver, "_active", EmulatedGpu())
    monkeypatch.setattr(knobs.runtime, "kernel_load_end_hook", remember_ptx)
    return driver.active


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "name", "dtype"),
    [
        ("ss2d", "whole tiles", torch.bfloat16),
        ("ss2d", "prime, odd channels, batch 3", torch.bfloat16),
        ("ss2d", "rank 35, strided", torch.bfloat16),
        ("ss2d", "rank 35, strided", torch.float32),
        ("ss2d", "tall, two channel blocks", torch.float16),
        ("ss2d", "one column", torch.float32),
        ("ss2d", "steps of ±50", torch.float32),
        ("ss2d", "d_state 3", torch.bfloat16),
        ("selective_scan", "two groups", torch.bfloat16),
        ("selective_scan", "longer than a chunk", torch.float32),
        ("cross_scan", "7 × 41", torch.bfloat16),
        ("cross_merge", "7 × 41", torch.float16),
        ("depthwise_conv_silu", "3 × 3", torch.bfloat16),
        ("layer_norm", "48 channels, GELU", torch.bfloat16),
        ("layer_norm", "odd channels", torch.float32),
        ("convolution_norm", "3 × 3, stride 2", torch.bfloat16),
        ("convolution_norm", "4 × 4, stride 4, odd channels", torch.float32),
        ("linear", "bias", torch.bfloat16),
        ("norm_linear", "GELU, residual", torch.bfloat16),
        ("norm_linear", "GELU, residual", torch.float32),
    ],
    ids=str,
)
def test_as_compiled_for_a_gpu(op: str, name: str, dtype: torch.dtype, gpu: EmulatedGpu) -> None:
    found = [
        case for case in cases.small_cases(dtype, torch.device("cpu")) if (case.op, case.name) == (op, name)
    ]
    options = {key: value for key, value in found[0].options.items() if key != "activation"}
    case = dataclasses.replace(found[0], draw=lambda: (found[0].arguments, options))
    verdict = verify.verify_case(case, dtype, "triton", twice=False)
    assert verdict.passed, verdict


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_several_tiles_per_chunk_as_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the channels and the rank of the prime case above, whose kernels need not be compiled again."""
    monkeypatch.setattr(chunks, "ENOUGH_PROGRAMS", 2)
    assert chunks.tiles_per_chunk(17 * 5, 5, 1) == 3
    case = cases.ss2d_case("three tiles per chunk", torch.bfloat16, torch.device("cpu"), (1, 17, 5, 5), 3, 1)
    assert verify.verify_case(case, torch.bfloat16, "triton", twice=False).passed


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_large_tiles_of_a_product_as_compiled(
    monkeypatch: pytest.MonkeyPatch, gpu: EmulatedGpu, capability: int
) -> None:
    gpu.capability = capability
    fused_linear.plan.cache_clear()
    monkeypatch.setattr(linear_tiles, "FILLING", 4)
    for dtype, tile in ((torch.bfloat16, LARGE), (torch.float32, WIDE)):
        product = linear_tiles.Product(131, 400, 230, True, True, dtype)
        assert linear_tiles.tile_for(product, torch.device("cpu")) is tile
    case = block_cases.linear_case("large tiles", torch.bfloat16, torch.device("cpu"), 131, 400, 230)
    verdict = verify.verify_case(case, torch.bfloat16, "triton", twice=False)
    assert verdict.passed, verdict


@triton.jit
def gelu_kernel(x_ptr, y_ptr, size):
    at = tl.arange(0, 32)
    x = tl.load(x_ptr + at, mask=at < size, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, gelu(x, False).to(y_ptr.dtype.element_ty), mask=at < size)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gelu_of_extreme_values_as_compiled(dtype: torch.dtype) -> None:
    """As torch's in float64."""
    largest = torch.finfo(dtype).max
    x = torch.tensor([torch.inf, largest, 17.0, 1.0, -17.0, -largest, -torch.inf, torch.nan], dtype=dtype)
    y = torch.empty_like(x)
    gelu_kernel[(1,)](x, y, len(x), num_warps=1)
    expected = torch.nn.functional.gelu(x.double())
    rtol = 2 * torch.finfo(dtype).eps
    assert torch.allclose(y, expected.to(dtype), rtol=rtol, atol=1e-6, equal_nan=True)


STEPPED_DEPTHS, KEPT_DEPTHS = (128, 200), (40, 384)
"""Two steps, the fewest with which a copy can come too early, and four with a partial one; kept rows."""


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["folded", "not folded"])
@pytest.mark.parametrize("tile", [WIDE, SMALL, LARGE, LARGEST, KEPT, KEPT_FEW, KEPT_LOW], ids=Tile.label)
def test_no_copy_overwrites_what_a_product_reads(
    tile: Tile, norm: str, monkeypatch: pytest.MonkeyPatch, gpu: EmulatedGpu
) -> None:
    """Copies run as late as the waits for them allow, then at once, and products always as late as possible.

    With x in a ring of one buffer less than the weight, only copies that run at once gave wrong results.
    """
    monkeypatch.setattr(fused_linear, "is_folded", lambda weight, rows: norm == "folded")
    fused_linear.plan.cache_clear()
    monkeypatch.setattr(linear_tiles, "FILLING", 1)  # one program computes all columns
    monkeypatch.setattr(fused_linear, "tile_for", lambda product, device: tile)
    dtype = torch.float32 if tile is WIDE else torch.bfloat16
    for depth in STEPPED_DEPTHS if tile.depth else KEPT_DEPTHS:
        columns = (2 if tile.depth else 4) * tile.columns - depth % 16
        case = block_cases.linear_case(str(depth), dtype, torch.device("cpu"), tile.rows - 3, depth, columns)
        for gpu.eager_copies in (False, True):
            verdict = verify.verify_case(case, dtype, "triton", twice=False)
            assert verdict.passed, (gpu.eager_copies, verdict)


def test_a_stray_or_crooked_access_is_an_error() -> None:
    memory = Memory()
    start = memory.place(np.arange(8, dtype=np.uint8))
    at = np.array([start, start + 4], np.uint64)
    assert memory.load(at, 4, np.array([True, True])).tolist() == [0x03020100, 0x07060504]
    for step, active, word in ((4, [True, True], "outside"), (1, [True, False], "aligned")):
        with pytest.raises(ValueError, match=word):
            memory.load(at + np.uint64(step), 4, np.array(active))
    assert memory.load(at + np.uint64(4), 4, np.array([True, False])).tolist() == [0x07060504, 0]
