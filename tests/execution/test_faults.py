"""Every failure of a cell results in a row, and the sweep continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.faulty_sweeps import SWEEP, environment, rows, sweep, sweep_by_itself, write_spec

pytestmark = pytest.mark.slow

Faults = tuple[Path, dict[tuple[str, str], dict[str, Any]], subprocess.CompletedProcess[str]]
"""A run's folder, its rows, and how its sweep ended."""


@pytest.fixture(scope="module")
def everything_at_once(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    folder = tmp_path_factory.mktemp("faults")
    names = [
        "error", "hang", "killed", "crash", "quit_early", "device_oom", "launch_oom", "library_oom",
        "host_oom", "python_oom", "aborted_oom", "build_oom", "build_error", "not_a_number", "poisoned",
        "fine",
    ]  # fmt: skip
    spec = write_spec(folder, names, [32, 64])
    ended = sweep(folder, spec, "--cell-timeout", "4s")
    return folder, rows(folder), ended


def test_cells_that_failed_set_the_exit_code_and_the_last_line(everything_at_once: Faults) -> None:
    folder, found, ended = everything_at_once
    failed = [row for row in found.values() if row["status"] in ("error", "timeout")]
    assert len(failed) > 8
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert f"{len(failed)} of 32 cells failed" in last
    assert last.endswith("their logs are in run/logs")
    for row in failed:
        assert (folder / "run" / "logs" / f"{row['cell_id']}.txt").exists()
    assert "run/six_panel.png" in ended.stdout


def test_every_cell_has_a_row_and_the_healthy_ones_are_measured(everything_at_once: Faults) -> None:
    _, found, _ = everything_at_once
    assert len(found) == 32
    for size in ("32", "64"):
        assert found["fine", size]["status"] == "ok"
        assert found["fine", size]["host_vision_s"] > 0


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("device_oom", "vision"), ("launch_oom", "vision"), ("library_oom", "vision"), ("host_oom", "vision"),
        ("python_oom", "vision"), ("aborted_oom", "vision"), ("build_oom", "build"),
    ],
)  # fmt: skip
def test_out_of_memory_is_found_wherever_it_strikes(
    everything_at_once: Faults, name: str, where: str
) -> None:
    _, found, _ = everything_at_once
    row = found[name, "32"]
    assert (row["status"], row["oom_stage"]) == ("oom", where)
    assert row["message"]
    assert row["host_vision_s"] is None
    larger = found[name, "64"]
    assert larger["status"] == "skipped"
    assert larger["message"] == "already out of memory at 32"


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("error", "error", "ValueError: the weights"),
        ("build_error", "error", "no such layer"),
        ("hang", "timeout", "stopped after 4 s while warming up 1/1, vision"),
        ("crash", "error", "SIGSEGV while warming up 1/1, vision"),
        ("quit_early", "error", "exit code 3"),
        ("poisoned", "error", "device-side assert"),
    ],
)
def test_other_failures_are_named_and_do_not_skip_larger_sizes(
    everything_at_once: Faults, name: str, status: str, words: str
) -> None:
    _, found, _ = everything_at_once
    for size in ("32", "64"):
        assert found[name, size]["status"] == status
        assert words in found[name, size]["message"]


def test_a_killed_worker_counts_as_memory_only_where_the_kernel_says_so(everything_at_once: Faults) -> None:
    from vlmprof.measure.oom import system_oom_kills

    _, found, _ = everything_at_once
    row = found["killed", "32"]
    if system_oom_kills() is None:
        assert row["status"] == "oom"
    else:
        assert row["status"] == "error"
        assert "SIGKILL) from outside while warming up" in row["message"]


def test_values_that_are_not_finite_are_flagged(everything_at_once: Faults) -> None:
    _, found, _ = everything_at_once
    assert found["not_a_number", "32"]["status"] == "ok"
    assert "NaN or infinity" in found["not_a_number", "32"]["warnings"][0]
    assert found["fine", "32"]["warnings"] == []


def test_the_traceback_is_kept_in_the_log_and_not_shown(everything_at_once: Faults) -> None:
    folder, found, ended = everything_at_once
    log = folder / "run" / "logs" / f"{found['error', '32']['cell_id']}.txt"
    assert "are haunted" in log.read_text()
    assert "Traceback" not in ended.stderr + ended.stdout
    assert not (folder / "run" / "logs" / f"{found['fine', '32']['cell_id']}.txt").exists()


def test_running_again_repeats_nothing_unless_asked(everything_at_once: Faults) -> None:
    folder, found, _ = everything_at_once
    before = (folder / "run" / "rows.jsonl").read_bytes()
    ended = sweep(folder, folder / "spec.toml", "--cell-timeout", "4s")
    assert ended.returncode == 1
    assert "32 of 32 cells were done before" in ended.stderr
    assert (folder / "run" / "rows.jsonl").read_bytes() == before
    ended = sweep(folder, folder / "spec.toml", "--cell-timeout", "1s", "--retry", "timeout")
    assert ended.returncode == 1, ended.stderr
    again = rows(folder)
    assert "stopped after 1 s" in again["hang", "64"]["message"]
    assert again["error", "32"] == found["error", "32"]


def test_larger_sizes_run_after_all_when_asked(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, ["device_oom"], [32, 64])
    ended = sweep(tmp_path, spec)
    assert ended.returncode == 0
    assert "no figure: none of its 2 cells was measured (1 oom, 1 skipped)" in ended.stdout
    assert not (tmp_path / "run" / "six_panel.png").exists()
    assert rows(tmp_path)["device_oom", "64"]["status"] == "skipped"
    assert sweep(tmp_path, spec, "--run-after-oom").returncode == 0
    assert rows(tmp_path)["device_oom", "64"]["status"] == "oom"


def test_what_fails_after_measuring_costs_the_cell_nothing(tmp_path: Path) -> None:
    """The pass for memory by stage runs a fourth iteration, which these backbones do not survive."""
    the_pass = "measured, but the pass for each stage's memory"
    words = {
        "late_error": f"{the_pass} failed: the weights",
        "late_device_oom": f"{the_pass} ran out of memory: CUDA out of memory",
        "late_crash": "failed after the measurement: its process exited with SIGSEGV while reading memory",
        "late_hang": "failed after the measurement: stopped after 6 s while reading memory",
    }
    spec = write_spec(tmp_path, [*words, "fine"], [32])
    ended = sweep(tmp_path, spec, "--cell-timeout", "6s")
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path)
    if not found["fine", "32"]["peak_rss_vision_bytes"]:
        pytest.skip("this system cannot tell the memory of stages apart, so there is no such pass")
    assert found["fine", "32"]["warnings"] == []
    for name, said in words.items():
        row = found[name, "32"]
        assert row["status"] == "ok", row["message"]
        assert row["warnings"][-1].startswith(said)
        assert row["iterations"] == 2
        assert 0 < row["host_vision_s"] < row["end_to_end_s"]
        samples = json.loads((tmp_path / "run" / "samples" / f"{row['cell_id']}.json").read_text())
        assert len(samples["host_vision_s"]) == 2
        assert row["peak_rss_vision_bytes"] is None
    # what only the counting adds is there where the process lived to count
    assert found["late_error", "32"]["counted_vision_flops"] == found["fine", "32"]["counted_vision_flops"]


def test_a_short_budget_bounds_the_warm_up_and_says_that_nothing_settled(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, ["restless"], [32])
    spec.write_text(spec.read_text().replace("warm_up = 1\niterations = 2\n", ""))
    ended = sweep(tmp_path, spec, "--budget", "0.6s", "--no-profile")
    assert ended.returncode == 0, ended.stderr
    row = rows(tmp_path)["restless", "32"]
    said = " ".join(row["warnings"])
    assert "still not settled after" in said
    # a third of the budget, reached in calls of 15, 22, 34, 51, 76, 114 ms and so on
    assert 2 <= row["warm_up"] <= 7
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["spec"]["fixed"]["profile"] is False


def _start(folder: Path, spec: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SWEEP, str(spec), "--out", "run"], cwd=folder, env=environment(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _wait_for(condition: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def _children_gone(session: int) -> bool:
    import psutil

    alive = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return not alive


@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_stopped_in_the_middle_is_finished_by_the_same_command(
    tmp_path: Path, strike: signal.Signals
) -> None:
    spec = write_spec(tmp_path, ["fine", "slow"], [32, 64])
    mark = tmp_path / "running"
    process = _start(tmp_path, spec, SLOW_S="60", SLOW_MARK=str(mark))
    _wait_for(mark.exists)
    if strike is signal.SIGINT:
        # Ctrl-C, impatiently, to every process of the terminal's group
        os.killpg(process.pid, strike)
        time.sleep(0.05)
    os.kill(process.pid, strike) if strike is not signal.SIGINT else os.killpg(process.pid, strike)
    _, stderr = process.communicate(timeout=60)
    _wait_for(lambda: _children_gone(process.pid), 30)
    if strike is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + strike, stderr
        assert "the same command resumes" in stderr
        assert "Traceback" not in stderr

    before = (tmp_path / "run" / "rows.jsonl").read_bytes()
    assert len(before.splitlines()) == 2
    (tmp_path / "slow_s").write_text("0")
    ended = sweep(tmp_path, spec)
    assert ended.returncode == 0, ended.stderr
    after = (tmp_path / "run" / "rows.jsonl").read_bytes()
    assert after.startswith(before)
    assert {row["status"] for row in rows(tmp_path).values()} == {"ok"}
    assert len(after.splitlines()) == 4
    samples = {path.stem for path in (tmp_path / "run" / "samples").iterdir()}
    assert samples == {row["cell_id"] for row in rows(tmp_path).values()}


JUMPING_CLOCK = """
import itertools, time
real, calls = time.time, itertools.count()
time.time = lambda: real() + 86_400 * (-1) ** next(calls)  # a day ahead, a day behind, and so on
"""


def test_a_wall_clock_that_jumps_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # every Python process of the sweep imports this before anything else
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING_CLOCK)
    path = os.pathsep.join([str(tmp_path / "clock"), environment()["PYTHONPATH"]])
    seen = [sys.executable, "-c", "import time; print(abs(time.time() - time.time()) > 86_400)"]
    jumps = subprocess.run(seen, env=environment(PYTHONPATH=path), capture_output=True, text=True)
    assert jumps.stdout.strip() == "True"

    spec = write_spec(tmp_path, ["fine"], [32, 64])
    first = sweep_by_itself(tmp_path, spec, PYTHONPATH=path)
    assert first.returncode == 0, first.stderr
    found = rows(tmp_path)
    assert len(found) == 2
    for row in found.values():
        assert row["status"] == "ok"
        assert 0 < row["host_vision_s"] < row["end_to_end_s"] < row["wall_s"] < 60
        assert 0 < row["build_s"] < row["wall_s"]
    assert "day" not in first.stderr
    monkeypatch.setattr(time, "time", time.time)  # restored after the test
    exec(JUMPING_CLOCK, {})
    again = sweep(tmp_path, spec)
    assert again.returncode == 0, again.stderr
    assert rows(tmp_path) == found
