"""The log of a sweep with `-v`, and its absence without."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.faulty_sweeps import environment, rows, sweep, write_spec

pytestmark = pytest.mark.slow

VLMPROF = [sys.executable, "-m", "vlmprof"]
LINE = re.compile(r"^\d\d:\d\d:\d\d (vlmprof\.[\w.]+): (.+)$", re.MULTILINE)


def logged(folder: Path, *options: str) -> tuple[list[tuple[str, str]], str]:
    """The records, as (module, message), of a sweep of one cell that works and one that is out of memory."""
    spec = write_spec(folder, ["fine", "device_oom"], [32])
    ended = sweep(folder, spec, verbosity=options)
    assert ended.returncode == 0, ended.stderr
    assert not LINE.search(ended.stdout)
    return LINE.findall(ended.stderr), ended.stderr


def test_a_sweep_logs_nothing_unless_asked(tmp_path: Path) -> None:
    assert logged(tmp_path)[0] == []


def test_verbose_tells_of_the_device_and_of_every_cell(tmp_path: Path) -> None:
    found, _ = logged(tmp_path, "-v")
    messages = [message for _, message in found]
    assert re.fullmatch(r"device \S+: .+ bytes", messages[0])
    assert "2 cells to run in run, 0 done before" in messages
    device = messages[0].split()[1].removesuffix(":")
    assert f"faulty:fine @ 32 begins on {device}" in messages
    assert "faulty:fine @ 32 ended: ok" in messages
    ended = "faulty:device_oom @ 32 ended: oom, needed 20 GiB more"
    assert any(message.startswith(ended) for message in messages)
    assert not [module for module, _ in found if module.endswith("processes")]
    # what a cell's own process logs is in its log
    log = (tmp_path / "run" / "logs" / f"{rows(tmp_path)['device_oom', '32']['cell_id']}.txt").read_text()
    in_cell = LINE.findall(log)
    assert ("vlmprof.execution.worker", "out of memory in vision") in in_cell
    assert "built faulty:device_oom @ 32 in" in log
    assert "Traceback" in log


def test_twice_verbose_tells_of_processes_and_how_they_ended(tmp_path: Path) -> None:
    _, text = logged(tmp_path, "-vv")
    started = re.findall(r"processes: process (\d+) started: (\S+)", text)
    answered = re.findall(r"processes: process (\d+) answered \(value\), exit code 0", text)
    assert [target for _, target in started][-2:] == ["vlmprof.execution.worker:run_cell"] * 2
    assert [number for number, _ in started] == answered


def test_an_interrupt_ends_a_cool_down_at_once_and_the_disturbed_row_is_on_disk(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, ["slow"], [32])
    running = tmp_path / "running"
    busy: list[subprocess.Popen[bytes]] = []
    process = subprocess.Popen(
        [*VLMPROF, "-v", "sweep", str(spec), "--out", "run", "--cool-down", "600s", "--iterations", "4"],
        cwd=tmp_path, env=environment(SLOW_S="0.5", SLOW_MARK=str(running)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    written = tmp_path / "run" / "rows.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not (written.exists() and written.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
            if running.exists() and not busy:
                # one is enough, and it does not slow other tests down for longer than it has to
                busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])]
        for other in busy:
            other.kill()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        for other in busy:
            other.kill()
            other.wait()
    assert process.returncode == 130, stderr
    assert "was disturbed: other processes took" in stderr
    (row,) = rows(tmp_path).values()
    assert row["status"] == "ok"
    assert row["disturbances"]
