"""A device that waits before it repeats a disturbed cell does not delay other devices."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vlmprof.execution import sweep
from vlmprof.execution.launchers import local
from vlmprof.execution.progress import PlainProgress
from vlmprof.execution.rows import unmeasured_row
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import Row
from vlmprof.settings import Machine, Settings
from vlmprof.spec import build_spec
from vlmprof.store import read_rows


class Counted(PlainProgress):
    """Remembers the cells that it was told are finished."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.ended: list[str] = []

    def finished(self, cell: Cell, row: Row) -> None:
        self.ended.append(cell.axes.resolution)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Two simulated GPUs, the first cell of `cuda:0` disturbed: which cells began, and where."""
    begun: list[tuple[str, str]] = []

    def measure_cell(
        cell: Cell, settings: Settings, machine: Machine, log: Path, on_reading: object, stop: object
    ) -> tuple[Row, Samples]:
        disturbed = not any(device == "cuda:0" for _, device in begun) and settings.device == "cuda:0"
        begun.append((cell.axes.resolution, settings.device))
        row = unmeasured_row(cell, machine.device_name)
        return replace(row, disturbances=("the GPU throttled",) if disturbed else ()), Samples()

    monkeypatch.setattr(sweep, "describe_machine", lambda device, dtypes=(): Machine(device, "a GPU"))
    monkeypatch.setattr(local, "measure_cell", measure_cell)
    return begun


def run(folder: Path, cool_down: str, progress: Counted) -> None:
    axes = {"backbone": "vit-t", "resolution": [32, 64, 96, 128, 160], "llm": "llama-23m"}
    spec = build_spec({"axes": axes, "fixed": {"cool_down": cool_down}}, {}, "test")
    sweep.run_sweep(spec, folder, "a test", progress, devices=["cuda:0", "cuda:1"])


def test_the_other_device_goes_on_and_the_disturbed_cell_is_repeated_where_it_ran(
    devices: list[tuple[str, str]], tmp_path: Path
) -> None:
    progress = Counted()
    run(tmp_path / "run", "2s", progress)
    assert sorted(devices[:2]) == [("32", "cuda:0"), ("64", "cuda:1")]
    assert devices[2:] == [("96", "cuda:1"), ("128", "cuda:1"), ("160", "cuda:1"), ("32", "cuda:0")]
    assert progress.ended == ["64", "96", "128", "160", "32"]
    rows = read_rows(tmp_path / "run")
    # the disturbed row is on disk before its device rests
    assert sorted(row.axes["resolution"] for row in rows[:2]) == ["32", "64"]
    assert [row.axes["resolution"] for row in rows[2:]] == ["96", "128", "160", "32"]
    assert [row.axes["resolution"] for row in rows if row.disturbances] == ["32"]
    assert not rows[-1].disturbances


def test_an_interrupt_ends_a_rest_at_once(devices: list[tuple[str, str]], tmp_path: Path) -> None:
    def interrupt_when_only_the_rest_is_left() -> None:
        deadline = time.monotonic() + 60
        while len(read_rows(tmp_path / "run")) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    ended, begun_s = threading.Event(), time.monotonic()
    threading.Thread(target=interrupt_when_only_the_rest_is_left, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", "600s", Counted())
    finally:
        ended.set()
    assert time.monotonic() - begun_s < 300
    assert len(devices) == 5
    assert len(read_rows(tmp_path / "run")) == 5
