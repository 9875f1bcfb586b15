"""The MLP in one kernel: when it is used, its numbers without a GPU, and its machine code."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.interpreted import interpret
from vlmprof.cost import count_module
from vlmprof.kernels import norm_mlp
from vlmprof.kernels.block import mlp_tiles
from vlmprof.kernels.block.mlp_tiles import CANDIDATES, PIECES, is_fused, tile_for

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
CPU = torch.device("cpu")

INTERPRETED = """
import json, torch, triton
import triton.language as tl
from vlmprof.kernels.block import mlp_tiles, op
from vlmprof.kernels.common.device_math import gelu
from vlmprof.kernels.tools import block_cases, verify

torch.set_num_threads(1)
mlp_tiles.ROWS_PER_CHANNEL = 0
fused, calls = op._norm_mlp_op.registered, []
op._norm_mlp_op.registered = lambda *arguments: calls.append(1) or fused(*arguments)
for dtype in verify.DTYPES:
    for name, shape, hidden in (
        ("131 rows of 96", (131, 96), 384),
        ("29 rows of 128", (29, 128), 512),
        ("1 row of 192", (1, 192), 128),
        ("5 x 13 rows of 256", (5, 13, 256), 128),
        ("13 rows of 99", (13, 99), 384),
        ("hidden features of half a step", (13, 96), 96),
    ):
        calls.clear()
        case = block_cases.mlp_case(name, dtype, torch.device("cpu"), shape, hidden)
        verdict = verify.verify_case(case, dtype, "triton")
        print(json.dumps(vars(verdict) | {"passed": verdict.passed, "fused": len(calls)}), flush=True)

@triton.jit
def gelu_kernel(x_ptr, y_ptr, SIZE: tl.constexpr, PRECISE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(y_ptr + at, gelu(tl.load(x_ptr + at), PRECISE))

large = torch.logspace(-30, 30, 32)
x = torch.cat((torch.linspace(-20, 20, 65536 - 64), large, -large))
expected = x.double() * torch.special.ndtr(x.double())
for precise in (False, True):
    y = torch.empty_like(x)
    gelu_kernel[(1,)](x, y, x.numel(), precise)
    print((y.double() - expected).abs().max().item())
extreme = torch.tensor([torch.inf, 3e38, 17.0, -17.0, -3e38, -torch.inf, torch.nan, 0.0])
for precise in (False, True):
    y = torch.empty_like(extreme)
    gelu_kernel[(1,)](extreme, y, 8, precise)
    expected = torch.nn.functional.gelu(extreme.double())
    print(json.dumps([(y if precise else y.bfloat16()).tolist(), expected.tolist()]))
"""


@pytest.mark.slow
def test_in_the_interpreter(interpreted_environment: dict[str, str], tmp_path: Path) -> None:
    *lines, fast, precise, extreme, precise_extreme = interpret(
        INTERPRETED, tmp_path, interpreted_environment
    )
    verdicts = [json.loads(line) for line in lines]
    assert [v for v in verdicts if not v["passed"]] == []
    twice = [
        v for v in verdicts if v["dtype"] != "float32" and not v["case"].endswith(("rows of 99", "a step"))
    ]
    assert len(twice) == 8
    assert all(v["fused"] == (2 if v in twice else 0) for v in verdicts)
    assert float(fast) < 7e-7
    assert float(precise) < 4e-6  # at 20, two units in the last place
    for line, tolerance in ((extreme, 2**-8), (precise_extreme, 1e-6)):
        found, torchs = json.loads(line)
        np.testing.assert_allclose(found, torchs, rtol=tolerance)


@pytest.mark.parametrize(
    ("rows", "channels", "hidden", "dtype", "expected"),
    [
        (3136, 96, 384, BF16, True),  # VMamba-T at 224², the first level
        (784, 192, 768, BF16, False),  # and the second, where most multiprocessors would idle
        (16384, 192, 768, FP16, True),
        (1 << 20, 96, 384, FP32, False),
        (1 << 20, 96, 100, BF16, False),
        (1 << 20, 100, 400, BF16, False),
        (1 << 16, 384, 1536, BF16, False),
    ],
)
def test_when_it_is_one_kernel(
    rows: int, channels: int, hidden: int, dtype: torch.dtype, expected: bool
) -> None:
    assert is_fused(rows, channels, hidden, dtype) == expected


def test_few_rows_are_shared_among_more_programs() -> None:
    for channels, (large, small, *_) in CANDIDATES.items():
        assert sum(PIECES[channels]) == channels
        assert tile_for(132 * large.rows, channels, CPU) == large
        assert tile_for(131 * large.rows, channels, CPU) == small
        assert small.rows < large.rows


def test_it_matches_modules() -> None:
    x, norm, fc1, fc2 = torch.randn(2, 5, 12), nn.LayerNorm(12), nn.Linear(12, 48), nn.Linear(48, 12)
    parameters = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    with torch.no_grad():
        expected = x + fc2(nn.functional.gelu(fc1(norm(x))))
        for backend in ("torch", "reference"):
            assert torch.allclose(norm_mlp(x, *parameters, backend=backend), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"fc2_weight must be .* = \(12, 48\)"):
        norm_mlp(x, *parameters[:4], fc1.weight, fc2.bias)
    with pytest.raises(ValueError, match="channels = 12"):
        norm_mlp(x[..., :11], *parameters)
    with pytest.raises(RuntimeError, match="no_grad"):
        norm_mlp(x.to("meta"), *(p.to("meta") for p in parameters), backend="triton")


def test_the_hidden_features_take_no_memory() -> None:
    """At 256×256 pixels, two kernels write and read x four times, and one does not."""
    counted = {}
    for dtype in (BF16, FP32):
        shapes = ((1, 256, 256, 96), (96,), (96,), (384, 96), (384,), (96, 384), (96,))
        inputs = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
        counted[dtype] = count_module(
            nn.Identity(), inputs, call=lambda *i: norm_mlp(*i, backend="triton"), kernels="triton"
        )
    one, two = counted[BF16], counted[FP32]
    image = 256 * 256 * 96
    weights = 2 * 384 * 96 + 2 * 96 + 384 + 96
    assert (one.kernels, two.kernels) == (1, 2)
    assert one.moved_bytes == 2 * (2 * image + weights)
    assert two.moved_bytes > 4 * (11 * image)  # x twice and y, and the hidden features twice
    assert one.flops == pytest.approx(two.flops, rel=0.01)
    assert one.peak_activation_bytes == pytest.approx(2 * 2 * image, rel=0.01)
    assert two.peak_activation_bytes == pytest.approx(4 * 6 * image, rel=0.01)


compiled = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("channels", PIECES)
def test_rings_registers_and_programs_of_every_tile(channels: int) -> None:
    """While a step's second product may still read its weights, the copies for later steps begin: they need
    rings of as many buffers as stages. A ring that is read into registers too would be shorter."""
    triton = pytest.importorskip("triton")
    from vlmprof.kernels.tools import inspect
    from vlmprof.kernels.tools.launch_variants import mlp_launches

    for launch, tile in zip(mlp_launches(channels, BF16), CANDIDATES[channels], strict=True):
        code = inspect.compile_launch(launch, "sm_90")
        # later versions spill a few values around the loop
        assert code.spill_instructions <= (0 if triton.__version__.startswith("3.6.") else 12), launch.name
        assert code.mix["HGMMA"] > 0
        assert code.shared_bytes <= 227 << 10, launch.name
        programs = min(65536 // (32 * tile.warps * code.registers), 232448 // (code.shared_bytes + 1024))
        assert programs >= (2 if tile.registers == 128 else 1), launch.name
        made = triton.compile(
            inspect.source(launch), target=inspect.target("sm_90"), options=dict(launch.options)
        )
        layout = made.asm["ttgir"]
        rings = re.findall(r"(%\w+) = ttg.local_alloc : \(\) -> !ttg.memdesc<(\d+)x\d+x\d+x", layout)
        assert [int(buffers) for _, buffers in rings] == [tile.stages] * 4, launch.name
        views = {view for view, ring in re.findall(r"(%\w+) = ttg.memdesc_index (%\w+)", layout)
                 if ring in dict(rings)}  # fmt: skip
        assert len(views) > 4
        assert not views & set(re.findall(r"ttg.local_load (%\w+)", layout))
        assert set(re.findall(r"pendings = (\d+)", layout)) == {"0"}


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("channels", PIECES)
def test_as_compiled_for_a_gpu(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four or eight steps, so that the rings go round, and an incomplete block of rows; the emulator reads
    and writes asynchronously as late as it may. As in `test_compiled_numerics`."""
    pytest.importorskip("triton")
    from triton import knobs
    from triton.runtime import driver

    from tests.kernels.ptx.emulated_gpu import EmulatedGpu, remember_ptx
    from vlmprof.kernels.common import backends
    from vlmprof.kernels.tools import block_cases, verify

    monkeypatch.setattr(backends, "why_not_triton", lambda device: None)
    monkeypatch.setattr(driver, "_active", EmulatedGpu())
    driver.active.capability = 90
    monkeypatch.setattr(knobs.runtime, "kernel_load_end_hook", remember_ptx)
    monkeypatch.setattr(mlp_tiles, "ROWS_PER_CHANNEL", 0)
    for tile in CANDIDATES[channels][:2]:
        monkeypatch.setattr("vlmprof.kernels.block.fused_mlp.tile_for", lambda *_, tile=tile: tile)
        case = block_cases.mlp_case("as compiled", BF16, torch.device("cpu"), (131, channels), 256)
        assert is_fused(131, channels, 256, BF16)
        verdict = verify.verify_case(case, BF16, "triton", twice=False)
        assert verdict.passed, verdict
