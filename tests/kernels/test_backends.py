"""Errors of the backends against float64, by the rule of `vlmprof.kernels.tools.verify`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers.interpreted import interpret
from vlmprof.cli.kernels import app
from vlmprof.kernels import BACKENDS, resolve_backend
from vlmprof.kernels.common import backends
from vlmprof.kernels.tools import cases, verify
from vlmprof.kernels.tools.block_cases import BLOCK_OPERATIONS
from vlmprof.kernels.tools.case import Case
from vlmprof.settings import KernelBackend

INTERPRETED = """
import json, torch
from vlmprof.kernels.tools import cases, verify
from vlmprof.kernels.ss2d import chunks
torch.set_num_threads(1)
cpu = torch.device("cpu")
def show(case, dtype):
    verdict = verify.verify_case(case, dtype, "triton", twice=case.name == "one row")
    print(json.dumps(vars(verdict) | {{"passed": verdict.passed}}), flush=True)
for dtype in verify.DTYPES:
    for case in cases.small_cases(dtype, cpu):
        if dtype == torch.float32 or (case.op, case.name) in {chosen!r}:
            show(case, dtype)
chunks.ENOUGH_PROGRAMS = 2
assert chunks.tiles_per_chunk(17 * 5, 4, 1) == 3
show(cases.ss2d_case("three tiles per chunk", torch.float32, cpu, (1, 17, 5, 4), 2, 1), torch.float32)
"""

NARROW = [
    ("ss2d", "whole tiles"),
    ("ss2d", "prime, odd channels, batch 3"),
    ("ss2d", "d_state 3"),
    ("selective_scan", "two groups"),
    ("cross_scan", "7 × 41"),
    ("cross_merge", "7 × 41"),
    ("norm_linear", "GELU, residual"),
    ("norm_linear", "few rows, wide weight"),
    ("norm_linear", "few rows of 20,000"),
    ("depthwise_conv_silu", "3 × 3"),
    ("layer_norm", "48 channels, GELU"),
    ("layer_norm", "odd channels"),
    ("convolution_norm", "3 × 3, stride 2"),
]
"""What the interpreter runs in the narrow dtypes too: it is slow."""


@pytest.mark.parametrize(
    ("major", "minor", "hip", "why_not"),
    [
        (9, 0, None, None),
        (8, 0, None, None),
        (7, 5, None, r"the kernels need compute capability 8\.0, and this GPU has 7\.5"),
        (9, 4, "6.2", "the kernels use instructions of NVIDIA GPUs, and this one is AMD's"),
    ],
)
def test_a_gpu_that_the_kernels_do_not_know_runs_torch(
    major: int, minor: int, hip: str | None, why_not: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major, minor=minor)
    )
    monkeypatch.setattr(backends, "TRITON_INSTALLED", True)
    assert resolve_backend("ss2d", "cuda:1") == ("torch" if why_not else "triton")
    if why_not:
        with pytest.raises(RuntimeError, match=f"ss2d: backend 'triton' cannot run: {why_not}"):
            resolve_backend("ss2d", "cuda:1", "triton")
    else:
        assert resolve_backend("ss2d", "cuda:1", "triton") == "triton"


def test_settings_and_kernels_name_the_same_backends() -> None:
    assert get_args(KernelBackend) == BACKENDS


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
def test_torch_backend_is_as_exact_as_the_plain_code(dtype: torch.dtype) -> None:
    cpu = torch.device("cpu")
    verdicts = [each.verdict(cpu) for each in verify.comparisons(cpu, ["torch"], (dtype,))]
    assert [v for v in verdicts if not v.passed] == []
    assert {v.op for v in verdicts} >= {"ss2d", "selective_scan", "cross_scan", "cross_merge"}


@pytest.mark.slow
def test_triton_backend_in_the_interpreter(interpreted_environment: dict[str, str], tmp_path: Path) -> None:
    printed = interpret(INTERPRETED.format(chosen=NARROW), tmp_path, interpreted_environment)
    verdicts = [json.loads(line) for line in printed]
    assert [v for v in verdicts if not v["passed"]] == []
    assert {v["dtype"] for v in verdicts} == {"float32", "bfloat16", "float16"}
    assert verdicts[-1]["case"] == "three tiles per chunk"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
def test_every_backend_on_a_gpu(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    backends = verify.available_backends(device)
    verdicts = [each.verdict(device) for each in verify.comparisons(device, backends, (dtype,))]
    assert [v for v in verdicts if not v.passed] == []
    assert {v.backend for v in verdicts} == {"torch", "triton"}


def wrong_case(op: str = "ss2d") -> Case:
    """The first case of an operation, one part in a thousand off on every backend but the reference."""
    case = next(case for case in cases.small_cases(torch.float32, torch.device("cpu")) if case.op == op)

    def off(*arguments: torch.Tensor, backend: str, **options: object) -> torch.Tensor:
        y = case.function(*arguments, backend="reference", **options)
        return y if backend == "reference" else 1.001 * y

    return dataclasses.replace(case, function=off)


@pytest.mark.parametrize("op", ["ss2d", "cross_scan", *BLOCK_OPERATIONS])
def test_a_wrong_result_fails(op: str) -> None:
    assert not verify.verify_case(wrong_case(op), torch.float32, "torch").passed


def test_only_the_cases_that_run_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def randn(*shape: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        drawn.append(shape)
        return torch.zeros(shape)

    monkeypatch.setattr(torch, "randn", randn)
    planned = list(verify.comparisons(torch.device("cuda"), ["torch"], verify.DTYPES))
    assert len(planned) > 100
    assert drawn == []
    assert {each.case.op for each in planned} >= {"ss2d", *BLOCK_OPERATIONS}
    assert planned[0].case.arguments[0] is planned[0].case.arguments[0]
    assert drawn


def test_what_a_backend_raises_is_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*arguments: object, backend: str) -> torch.Tensor:
        raise RuntimeError("out of resources\nand more")

    case = next(cases.small_cases(torch.float32, torch.device("cpu")))
    broken = dataclasses.replace(case, function=cannot)
    monkeypatch.setattr(verify, "small_cases", lambda dtype, device: iter([broken, case]))
    monkeypatch.setattr(verify, "medium_cases", lambda dtype, device: iter(()))
    result = CliRunner().invoke(app, ["verify", "--no-isolate", "--device", "cpu", "--dtype", "float32"])
    assert result.exit_code == 1
    assert "FAILED: RuntimeError: out of resources\n" in result.output
    assert "2 comparisons on cpu, 1 failed" in result.output


@pytest.mark.parametrize(("wrong", "code"), [(False, 0), (True, 1)])
def test_the_command_exits_with_1_on_a_failure(
    wrong: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wrong_case() if wrong else next(cases.small_cases(torch.float32, torch.device("cpu")))
    monkeypatch.setattr(verify, "small_cases", lambda dtype, device: iter([made]))
    monkeypatch.setattr(verify, "medium_cases", lambda dtype, device: iter(()))
    arguments = ["verify", "--no-isolate", "--device", "cpu", "--backend", "torch", "--dtype", "float32"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert ("FAILED" in result.output) == wrong
