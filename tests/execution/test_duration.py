"""How long a sweep takes: its estimate, and the correction as cells end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.checks import known
from vlmprof.errors import UserError
from vlmprof.execution import duration, sweep
from vlmprof.execution.duration import TimeLeft, cell_seconds, total_seconds
from vlmprof.execution.duration_counting import iteration_seconds
from vlmprof.execution.progress import PlainProgress
from vlmprof.plan import make_plan
from vlmprof.settings import Machine
from vlmprof.spec import load_spec

SPEC = load_spec("quick", {"backbone": ["vit-t", "vit-s"], "resolution": ["64", "128", "256"]})
CELLS = make_plan(SPEC)
CEILINGS = {"float32": {"matmul_ceiling_flops_per_s": 1e12, "copy_ceiling_bytes_per_s": 1e11}}


def test_what_remains_is_corrected_by_what_was_measured() -> None:
    expected = {cell.cell_id: 10.0 * (i + 1) for i, cell in enumerate(CELLS)}
    left = TimeLeft(CELLS, expected)
    assert left.seconds() == pytest.approx(210.0)
    assert left.seconds(30.0) == pytest.approx(180.0)
    left.finished(CELLS[0], 20.0, ran=True)
    assert left.seconds() == pytest.approx(2 * 200.0)
    left.finished(CELLS[1], 10.0, ran=True)
    assert left.seconds() == pytest.approx(30.0 / 30.0 * 180.0)
    left.finished(CELLS[5], 0.0, ran=False)
    assert left.seconds() == pytest.approx(120.0)


def test_without_an_estimate_the_first_cell_tells() -> None:
    left = TimeLeft(CELLS)
    assert left.seconds() is None
    left.finished(CELLS[0], 3.0, ran=True)
    assert left.seconds() == pytest.approx(5 * 3.0)


def test_a_cell_takes_its_warm_up_its_samples_and_two_passes() -> None:
    fixed = replace(SPEC.settings, sampling="fixed", warm_up=100, iterations=100, profile=True)
    assert cell_seconds(fixed, 1.0) == pytest.approx(100 + 100 + 2, rel=0.01)
    slow = replace(SPEC.settings, sampling="adaptive", warm_up=None, budget_s=2.0, profile=False)
    assert cell_seconds(slow, 6.0) == pytest.approx(2 * 6 + 2 * 6 + 6, rel=0.1)
    assert slow.longest_sampling_s == pytest.approx(2.0 + 2.0 / 3)
    assert replace(slow, warm_up=2).longest_sampling_s == 2.0
    assert fixed.longest_sampling_s is None


def test_iterations_are_counted_at_the_ends_of_a_line_and_grow_between() -> None:
    seconds = iteration_seconds(CELLS, SPEC.settings, CEILINGS)
    assert seconds.keys() == {cell.cell_id for cell in CELLS}
    tiny, small = ([seconds[cell.cell_id] for cell in CELLS[i : i + 3]] for i in (0, 3))
    assert tiny == sorted(tiny)
    assert small[-1] > tiny[-1] >= tiny[0] >= 5e-3
    ten_times_slower = {"float32": {name: value / 10 for name, value in CEILINGS["float32"].items()}}
    slower = iteration_seconds(CELLS, SPEC.settings, ten_times_slower)
    assert slower[CELLS[-1].cell_id] == pytest.approx(10 * small[-1], rel=0.01)


def test_what_cannot_be_counted_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "call_in_process", lambda *args, **options: pytest.fail("counted"))
    unknown = Machine("cpu", "a processor")
    assert duration.expected_seconds(CELLS, SPEC.settings, unknown) == {}
    measured = Machine("cpu", "a processor", ceilings=CEILINGS)
    assert duration.expected_seconds(CELLS[:2], SPEC.settings, measured) == {}
    users = [replace(cell, axes=replace(cell.axes, backbone="mine:small")) for cell in CELLS]
    assert duration.expected_seconds(users, SPEC.settings, measured) == {}
    assert total_seconds(CELLS, {}) is None
    every = {cell.cell_id: 2.0 for cell in CELLS}
    assert known(total_seconds(CELLS, every, devices=2)) == pytest.approx(6.0)


def test_progress_is_shown_while_the_device_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Watched(PlainProgress):
        def __enter__(self) -> Watched:
            shown.append("progress")
            return self

    def looked_at(*about: object) -> object:
        shown.append("device")
        raise UserError("no such device")

    monkeypatch.setattr(sweep, "_local_launcher", looked_at)
    with pytest.raises(UserError, match="no such device"):
        sweep.run_sweep(SPEC, tmp_path / "run", "", Watched(Console()))
    assert shown == ["progress", "device"]


def test_a_sweep_says_how_long_it_takes_before_its_first_cell() -> None:
    console = Console(file=io.StringIO(), width=100)
    PlainProgress(console).begin(CELLS, 0, {cell.cell_id: 20.0 for cell in CELLS})
    assert console.file.getvalue() == "6 cells to run, about 2 min 00 s\n"  # type: ignore[attr-defined]
