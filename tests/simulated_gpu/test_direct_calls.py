"""Repeated calls of operations on a GPU: which go past torch's dispatcher, and which must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.simulated_gpu.simulate import environment, why_not

pytestmark = pytest.mark.slow

SCRIPT = """
import json
import torch
from torch.autograd import forward_ad
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from vlmprof.kernels import convolution_norm, layer_norm, linear, norm_mlp
from vlmprof.kernels.block import norm_op, op

found, dispatched, seen = {}, [], []
for operator in (op._linear_op, op._norm_mlp_op, norm_op._layer_norm_op, norm_op._convolution_norm_op):
    def counted(*arguments, registered=operator.registered):
        dispatched.append(1)
        return registered(*arguments)

    operator.registered = counted


class Counter(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        seen.append(str(func))
        return func(*args, **(kwargs or {}))


def drawn(*shape, device="cuda"):
    return torch.zeros(*shape, device=device, dtype=torch.bfloat16)


def call(name, x, weight, bias=None, function=linear, **options):
    dispatched.clear()
    try:
        y = function(x, weight, bias, **options)
        found[name] = [len(dispatched), list(y.shape), str(y.dtype), str(y.device)]
    except (ValueError, TypeError, RuntimeError) as error:
        found[name] = [type(error).__name__, str(error)]


x, weight, bias = drawn(2, 20, 64), torch.nn.Parameter(drawn(32, 64)), drawn(32)
with torch.inference_mode():
    call("first", x, weight, bias)
    call("again", x, weight, bias)
    call("other shape", drawn(2, 21, 64), weight, bias)
    call("non-contiguous", drawn(2, 64, 20).transpose(1, 2), weight, bias)
    call("wrong bias", x, weight, drawn(31))
    call("bias elsewhere", x, weight, bias.cpu())
    call("a list", x, weight, [1.0] * 32)
    call("unknown activation", x, weight, bias, activation="relu")
    call("unknown backend", x, weight, bias, backend="cuda")
    with Counter():
        call("counted", x, weight, bias)
    with profile() as records:
        call("profiled", x, weight, bias)
    found["events"] = sorted({event.name for event in records.events() if "vlmprof" in event.name})
    found["seen"] = [name for name in seen if "vlmprof" in name]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        call("autocast", x.float(), weight, bias)
    other = [drawn(2, 20, 64, device="cuda:1"), drawn(32, 64, device="cuda:1")]
    call("another device", *other)
    call("another device again", *other)
    with torch.cuda.device(1):
        call("the current device", *other)
    call("compiled", x, weight, function=torch.compile(linear, fullgraph=True, backend="aot_eager"))
    call("vmap", x, weight, bias, function=torch.func.vmap(linear, in_dims=(0, None, None)))
    vector, image, filters = drawn(96), drawn(1, 32, 32, 3), drawn(96, 3, 3, 3)
    mlp = (vector, vector, drawn(384, 96), drawn(384), drawn(96, 384), vector)
    for time in ("first", "again"):
        call(f"{time} norm", drawn(2, 20, 96), vector, vector, function=layer_norm)
        call(f"{time} stem", image, filters, vector, function=convolution_norm)
        call(f"{time} wide", drawn(1, 9, 9, 96), drawn(20, 96, 3, 3), drawn(20), function=convolution_norm)
        for name, rows in (("one kernel", 4000), ("two kernels", 20)):
            call(f"{time} {name}", drawn(rows, 96), *mlp[:2], function=lambda x, *_: norm_mlp(x, *mlp))
call("requires grad", x, weight, bias)
with torch.no_grad():
    call("no grad", x, weight, bias)
    with forward_ad.dual_level():
        call("tangent", forward_ad.make_dual(x, x), weight, bias)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What the script found in a machine with two GPUs."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU")
    machine = {**os.environ, **environment(tmp_path_factory.mktemp("gpu")), "SIMULATED_GPUS": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=machine, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stderr
    parsed: dict[str, list[object]] = json.loads(ended.stdout)
    return parsed


@pytest.mark.parametrize(
    ("name", "dispatches"),
    [
        ("first", 1),
        ("again", 0),
        ("other shape", 1),
        ("non-contiguous", 0),
        ("autocast", 0),
        ("the current device", 1),
        ("no grad", 0),
        # what takes part in the dispatch sees every call
        ("counted", 1),
        ("profiled", 1),
        ("another device", 1),
        ("another device again", 1),
    ],
)
def test_only_a_known_call_that_nothing_observes_is_direct(
    name: str, dispatches: int, found: dict[str, list[object]]
) -> None:
    rows = 21 if name == "other shape" else 20
    device = "cuda:1" if "device" in name else "cuda:0"
    assert found[name] == [dispatches, [2, rows, 32], "torch.bfloat16", device]


@pytest.mark.parametrize(
    ("name", "dispatches"), [("norm", 1), ("stem", 1), ("wide", 1), ("one kernel", 1), ("two kernels", 2)]
)
def test_norms_and_mlps_are_direct_too(name: str, dispatches: int, found: dict[str, list[object]]) -> None:
    assert found[f"first {name}"][0] == dispatches
    assert found[f"again {name}"] == [0, *found[f"first {name}"][1:]]


def test_counters_profilers_and_transforms_see_the_operator(found: dict[str, list[object]]) -> None:
    assert found["seen"] == ["vlmprof.linear.default"]
    assert found["events"] == ["vlmprof::linear"]
    assert found["compiled"][1:] == found["vmap"][1:] == [[2, 20, 32], "torch.bfloat16", "cuda:0"]
    assert found["vmap"][0] == 1


def test_errors_are_the_same_after_a_call_that_passed(found: dict[str, list[object]]) -> None:
    assert found["wrong bias"] == ["ValueError", "linear: bias must be (out_features) = (32,), got (31,)"]
    assert found["bias elsewhere"] == ["ValueError", "linear: bias is on cpu, the input is on cuda:0"]
    assert "unknown activation 'relu'" in str(found["unknown activation"][1])
    assert "unknown backend 'cuda'" in str(found["unknown backend"][1])
    assert found["a list"] == ["TypeError", "linear: bias must be a dense tensor, got list"]
    for name in ("requires grad", "tangent"):
        assert found[name][0] == "RuntimeError"
        assert "no_grad" in str(found[name][1])
