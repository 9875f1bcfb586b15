"""Errors of the backends against float64, by the rule of `vlmprof.kernels.verify`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from vlmprof.kernels import verify

INTERPRETED = """
import json, torch
from vlmprof.kernels import verify
torch.set_num_threads(1)
for dtype in verify.DTYPES:
    for case in verify.cases(dtype, torch.device("cpu")):
        if dtype == torch.float32 or case.name in {chosen!r}:
            verdict = verify.verify_case(case, dtype, "triton")
            print(json.dumps(vars(verdict) | {{"passed": verdict.passed}}), flush=True)
"""

NARROW = ["prime, odd channels, batch 3", "two groups", "7 × 41", "GELU, residual", "3 × 3", "d_state 3"]
"""What the interpreter runs in the narrow dtypes too: it is slow."""


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
def test_torch_backend_is_as_exact_as_the_plain_code(dtype: torch.dtype) -> None:
    device = torch.device("cpu")
    verdicts = [verify.verify_case(case, dtype, "torch") for case in verify.cases(dtype, device)]
    assert [v for v in verdicts if not v.passed] == []
    assert {v.op for v in verdicts} >= {"ss2d", "selective_scan", "cross_scan", "cross_merge"}


@pytest.mark.slow
def test_triton_backend_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED.format(chosen=NARROW)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v for v in verdicts if not v["passed"]] == []
    assert {v["dtype"] for v in verdicts} == {"float32", "bfloat16", "float16"}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
def test_every_backend_on_a_gpu(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    verdicts = list(verify.verify(device, verify.available_backends(device), (dtype,)))
    assert [v for v in verdicts if not v.passed] == []
    assert {v.backend for v in verdicts} == {"torch", "triton"}


def test_a_wrong_result_fails() -> None:
    case = next(verify.cases(torch.float32, torch.device("cpu")))
    broken = verify.Case(
        case.op,
        case.name,
        lambda *arguments, backend: (
            case.function(*arguments, backend="reference") * (1.0 if backend == "reference" else 1.001)
        ),
        case.arguments,
        {},
    )
    assert not verify.verify_case(broken, torch.float32, "torch").passed
