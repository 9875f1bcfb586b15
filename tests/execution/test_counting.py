"""Counting on several cores gives the same result as on one, even if other processes fail."""

from __future__ import annotations

import os

import pytest

from vlmprof.cost.count import count_cells
from vlmprof.execution import counting
from vlmprof.execution.processes import Ended, call_in_process
from vlmprof.plan import make_plan
from vlmprof.spec import build_spec

SPEC = build_spec(
    {"axes": {"backbone": ["vit-t", "vmamba-t", "vit-s"], "resolution": [32, 70], "llm": "llama-23m"}},
    {},
    "t",
)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "CELLS_PER_PROCESS", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("dies", [False, True])
def test_the_same_costs_in_the_same_order(dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def call(target: str, args: tuple[object, ...]) -> Ended:
        calls.append(target)
        return Ended(exit_code=-9) if dies else call_in_process(target, args)

    monkeypatch.setattr(counting, "call_in_process", call)
    cells = make_plan(SPEC)
    found = counting.count_on_all_cores(cells, SPEC.settings, "triton")
    assert len(calls) == 1
    assert [cell.label for cell, _ in found] == [c.label for c in cells if c.skip_reason is None]
    assert found == count_cells(cells, SPEC.settings, "triton")


def test_few_cells_are_counted_here() -> None:
    counting.get_ready_to_count(make_plan(SPEC))
    assert counting.worth_starting(make_plan(SPEC)) == 0
