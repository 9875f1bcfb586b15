"""The first, discarded iteration: compilation, and a check of the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.commands import vlmprof
from vlmprof.execution.worker import ELEMENTS_AT_ONCE, is_finite
from vlmprof.measure.measurement import MeasurementProtocol, measure
from vlmprof.measure.stopping import FixedCount

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODULE = """
import torch
from torch import nn
from vlmprof.backbones import backbone

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 64, 32, 32)

    def forward(self, images):
        tokens = self.proj(images).flatten(2).transpose(1, 2)
        first = torch.full_like(tokens[:, :1], float("nan"))
        return torch.cat((first, tokens[:, 1:]), dim=1)

@backbone(embed_dim=64, stride=32)
def first_token_lost():
    return Patches()
"""
NOT_FINITE = "the output contains NaN or infinity"
DISCARDED = "a first iteration was discarded despite warm_up 0, since it may compile and allocate"


def measured(folder: Path, stages: tuple[str, ...], *options: str) -> dict[str, Any]:
    (folder / "odd.py").write_text(MODULE)
    ended = vlmprof(
        folder, "sweep", "--backbone", "odd:first_token_lost", "--resolution", "96", "--llm", "llama-23m",
        "--dtype", "float32", "--iterations", "2", "--out", "run", *options,
        *(word for stage in stages for word in ("--stages", stage)),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    row: dict[str, Any] = json.loads((folder / "run" / "rows.jsonl").read_text())
    return row


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [("vision",), ("preprocess", "vision", "connector", "prefill", "decode")],
    ids=["vision alone", "with decoding"],
)
def test_values_that_are_not_finite_are_found_without_a_warm_up(
    stages: tuple[str, ...], tmp_path: Path
) -> None:
    row = measured(tmp_path, stages, "--warm-up", "0")
    assert row["status"] == "ok"
    assert row["warnings"][:2] == [NOT_FINITE, DISCARDED]
    assert (row["warm_up"], row["iterations"]) == (1, 2)
    assert ("decode" in stages) == (row["cache_bytes"] is not None)


def test_what_compiles_is_in_no_sample() -> None:
    calls = []

    def compile_first(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return torch.full((1,), len(calls))

    protocol = MeasurementProtocol(warm_up=0, stopping=FixedCount(3), stage_memory=False, profile=False)
    measurement = measure({"vision": compile_first}, protocol)
    assert len(calls) == 1 + 3
    assert measurement.warm_up_iterations == 1
    assert measurement.first_iteration_s > 0
    assert measurement.iterations == 3
    assert DISCARDED in measurement.warnings


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, ELEMENTS_AT_ONCE - 1, ELEMENTS_AT_ONCE, -1])
def test_every_element_is_looked_at(value: float, at: int) -> None:
    values = torch.zeros(3, ELEMENTS_AT_ONCE // 2)
    assert is_finite(values)
    values.view(-1)[at] = value
    assert not is_finite(values)
