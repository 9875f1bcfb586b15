"""Repeats of cells and the ceilings of a run, with a launcher that pretends to measure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from vlmprof.analysis.runs import load
from vlmprof.execution import sweep
from vlmprof.execution.ceilings import with_ceilings
from vlmprof.execution.launchers import Finished, Job
from vlmprof.execution.order import repeated
from vlmprof.execution.progress import choose_progress
from vlmprof.execution.rows import unmeasured_row
from vlmprof.execution.sharing import SharedLLM
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell, make_plan
from vlmprof.records import StageFigures
from vlmprof.settings import Machine, Settings
from vlmprof.spec import build_spec

DOCUMENT = {
    "axes": {"backbone": ["vit-t", "vit-s"], "resolution": [224, 256], "llm": "llama-23m", "dtype": "float32"}
}
CEILINGS = {"float32": {"copy_ceiling_bytes_per_s": 1e10, "matmul_ceiling_flops_per_s": 1e12}}


class Pretended:
    """A launcher whose cells take `seconds`, by repeat, and whose vision reaches `flops_per_s`."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.asked_again = 0
        self.seconds: Mapping[int, float] = {1: 1.0, 2: 1.1, 3: 1.2}
        self.flops_per_s = 0.5e12
        self.again: Mapping[str, Mapping[str, float]] = CEILINGS
        self.interrupt_after: int | None = None
        self.estimated: list[str] = []
        self._waiting: deque[Job] = deque()

    def __enter__(self) -> Pretended:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def has_room(self) -> bool:
        return not self._waiting

    def start(self, job: Job) -> None:
        if len(self.order) == self.interrupt_after:
            raise KeyboardInterrupt
        self.order.append(job.cell.label)
        self._waiting.append(job)

    def repeat(self, finished: Finished, rest_s: float) -> None:
        raise AssertionError("nothing was disturbed")

    def wait(self) -> Finished:
        job = self._waiting.popleft()
        seconds = self.seconds[job.cell.repeat]
        row = replace(
            unmeasured_row(job.cell, "pretended"),
            stages={"vision": StageFigures(host_s=seconds / 2, achieved_flops_per_s=self.flops_per_s)},
            end_to_end_s=seconds,
        )
        samples = Samples({"end_to_end_s": [seconds] * 4, "host_vision_s": [seconds / 2] * 4})
        return Finished(job, with_ceilings(row, CEILINGS), samples, None)

    def expected(self, cells: Sequence[Cell], settings: Settings, machine: Machine) -> dict[str, float]:
        self.estimated = [cell.cell_id for cell in cells]
        return dict.fromkeys(self.estimated, 1.0)

    def ceilings(self, dtypes: Collection[str]) -> Mapping[str, Mapping[str, float]]:
        self.asked_again += 1
        return self.again


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    launcher = Pretended()
    machine = Machine("cpu", "pretended", ceilings=CEILINGS)
    monkeypatch.setattr(sweep, "_local_launcher", lambda *_: (launcher, machine))
    monkeypatch.setattr(sweep, "expected_seconds", launcher.expected)
    return launcher


def run(out: Path, repeats: int = 1, **fixed: Any) -> sweep.SweepOutcome:
    spec = build_spec({**DOCUMENT, "fixed": fixed}, {}, "test")
    return sweep.run_sweep(spec, out, "vlmprof sweep", choose_progress(), repeats=repeats)


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


PASS = ["vit-t @ 224", "vit-t @ 256", "vit-s @ 224", "vit-s @ 256"]


def test_repeats_are_passes_over_all_cells_that_go_on_where_they_stopped(
    tmp_path: Path, pretended: Pretended
) -> None:
    pretended.interrupt_after = 6
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, repeats=3)
    pretended.interrupt_after = None
    outcome = run(tmp_path, repeats=3)
    assert (outcome.measured, outcome.kept) == (6, 6)
    assert pretended.order == [
        label for times in ("", ", repeat 2", ", repeat 3") for label in (name + times for name in PASS)
    ]
    rows = written(tmp_path)
    assert [row["repeat"] for row in rows] == [1] * 4 + [2] * 4 + [3] * 4
    assert len({row["cell_id"] for row in rows}) == 12
    assert len(list((tmp_path / "samples").iterdir())) == 12
    first = [row["cell_id"] for row in rows if row["repeat"] == 1]
    assert sorted(pretended.estimated) == sorted(first), "the duration of a cell is estimated once"
    assert run(tmp_path).measured == 0, "without --repeat there is nothing left to do"


def test_a_run_without_repeats_gets_more(tmp_path: Path, pretended: Pretended) -> None:
    run(tmp_path)
    first = (tmp_path / "rows.jsonl").read_bytes()
    assert run(tmp_path, repeats=2).measured == 4
    assert (tmp_path / "rows.jsonl").read_bytes().startswith(first)
    loaded = load(tmp_path)
    assert (len(loaded.frame), len(loaded.rows)) == (4, 8)
    assert loaded.frame["end_to_end_s"].tolist() == pytest.approx([1.05] * 4)


def test_random_order_differs_between_repeats(tmp_path: Path, pretended: Pretended) -> None:
    run(tmp_path, repeats=3, order="random")
    passes = [[label.split(",")[0] for label in pretended.order[i : i + 4]] for i in (0, 4, 8)]
    assert [sorted(one) for one in passes] == [sorted(PASS)] * 3
    assert passes[0] != passes[1] or passes[1] != passes[2]


def test_each_repeat_measures_the_llm_that_its_cells_share() -> None:
    cells = repeated(make_plan(build_spec(DOCUMENT, {}, "test")), 2, "lines", 0)
    whole = replace(
        unmeasured_row(cells[0], "pretended"), stages={"prefill": StageFigures(host_s=1.0)}, end_to_end_s=1.0
    )
    llms = SharedLLM(True, [whole])
    assert llms.source_row(cells[2]) is whole
    assert llms.source_row(cells[6]) is None


def test_a_rate_above_the_ceiling_is_remarked(tmp_path: Path, pretended: Pretended) -> None:
    pretended.flops_per_s = 1.5e12
    run(tmp_path)
    assert pretended.asked_again == 1
    for row in written(tmp_path):
        (words,) = row["warnings"]
        assert words.startswith("vision reached 150% of the ceiling of a matrix product")


def test_a_ceiling_that_was_taken_under_load_is_corrected_at_the_end(
    tmp_path: Path, pretended: Pretended
) -> None:
    pretended.flops_per_s = 1.5e12
    pretended.again = {"float32": {"copy_ceiling_bytes_per_s": 0.9e10, "matmul_ceiling_flops_per_s": 2e12}}
    run(tmp_path)
    rows = written(tmp_path)
    assert len(rows) == 4
    best = {"copy_ceiling_bytes_per_s": 1e10, "matmul_ceiling_flops_per_s": 2e12}
    for row in rows:
        assert row["warnings"] == []
        assert {name: row[name] for name in best} == best
    assert json.loads((tmp_path / "run.json").read_text())["environment"]["ceilings"] == {"float32": best}


def test_a_short_sweep_below_its_ceilings_measures_them_once(tmp_path: Path, pretended: Pretended) -> None:
    run(tmp_path)
    assert pretended.asked_again == 0


def test_a_long_sweep_measures_its_ceilings_again(
    tmp_path: Path, pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "AGAIN_AFTER_S", 0.0)
    pretended.again = {"float32": {"copy_ceiling_bytes_per_s": 1.005e10, "matmul_ceiling_flops_per_s": 1e12}}
    run(tmp_path)
    assert pretended.asked_again == 1
    assert {row["copy_ceiling_bytes_per_s"] for row in written(tmp_path)} == {1e10}, "no change worth a note"
