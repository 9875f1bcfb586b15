"""Systems other than a Linux machine of one's own, emulated as far as their differences are known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tests.helpers.commands import vlmprof
from vlmprof import environment
from vlmprof.environment import accelerator_facts
from vlmprof.errors import UserError
from vlmprof.execution import starting
from vlmprof.execution.endings import how_it_ended
from vlmprof.execution.processes import Ended
from vlmprof.measure import oom
from vlmprof.measure.measurement import MeasurementProtocol, measure
from vlmprof.measure.stopping import FixedCount
from vlmprof.measure.telemetry import Telemetry
from vlmprof.records import Status

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    starting.context.cache_clear()
    yield
    starting.context.cache_clear()


@pytest.mark.usefixtures("mac")
def test_apples_gpu_is_left_alone_and_said_to_be() -> None:
    found = accelerator_facts("auto")
    assert found.device == "cpu"
    assert found.warnings[0].startswith("mps is not used: torch's events on Apple's GPU may hang")
    assert not any("mps" in line for line in accelerator_facts("cpu").warnings)
    with pytest.raises(UserError, match=r"'mps' cannot be measured: torch's events .*; use --device cpu"):
        accelerator_facts("mps")


def test_nor_is_it_measured_when_asked_directly() -> None:
    with pytest.raises(ValueError, match="device 'mps' cannot be measured: torch's events"):
        measure(
            {"square": lambda _: None}, MeasurementProtocol(warm_up=0, stopping=FixedCount(1)), device="mps"
        )


@pytest.mark.usefixtures("mac")
def test_processes_on_a_mac_are_not_forked() -> None:
    assert starting.context().get_start_method() == "spawn"


@pytest.mark.usefixtures("mac")
def test_a_clock_that_psutil_cannot_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise SystemError("returned a result with an exception set")

    monkeypatch.setattr(psutil, "cpu_freq", fails)
    seconds = iter((0.0, 1.0))
    telemetry = Telemetry(clock_s=lambda: next(seconds))
    telemetry.poll(os.getpid(), 0)
    telemetry.poll(os.getpid(), 1)
    state = telemetry.summary()
    assert state.cpu_clock_mean_mhz is None
    assert state.other_load_cores is not None


def test_a_kill_that_no_counter_explains_is_called_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "system_oom_kills", lambda: None)
    status, message = how_it_ended(Ended(exit_code=-signal.SIGKILL), " in vision", None, None)
    assert status is Status.OOM
    assert message == "killed (SIGKILL), probably because the system ran out of memory in vision"


QUOTAS = {
    "v2": ({"cpu.max": "200000 100000"}, "0::/pods/mine", 2.0),
    "v2, of a parent": ({"../cpu.max": "50000 100000", "cpu.max": "max 100000"}, "0::/pods/mine", 0.5),
    "v2, the whole tree": ({"../../cpu.max": "150000 100000"}, "0::/", 1.5),
    "v2, no limit": ({"cpu.max": "max 100000"}, "0::/pods/mine", None),
    "v1": ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/pods/mine", 3.0),
    "v1, no limit": ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, "1:cpu:/pods/mine", None),
    "v1, of another controller": ({"cpu.max": "200000 100000"}, "7:cpuset:/pods/mine", None),
    "unreadable": ({"cpu.max": ""}, "0::/pods/mine", None),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_the_quota_of_a_container_is_known(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files, line, cores = QUOTAS[case]
    tree = tmp_path / "cgroup"
    own = tree / ("cpu" if line[0] != "0" else "") / "pods/mine"
    own.mkdir(parents=True)
    for name, content in files.items():
        (own / name).write_text(content)
    groups = tmp_path / "groups"
    groups.write_text(f"9:memory:/\n{line}\n")
    monkeypatch.setattr(environment, "CGROUPS", tree)
    monkeypatch.setattr(environment, "OWN_CGROUPS", groups)
    assert environment.cpu_quota_cores() == cores


def test_more_threads_than_a_container_may_run_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cpu_quota_cores", lambda: 2.5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    assert accelerator_facts("cpu").warnings == (
        "torch uses 32 threads, and this container may use 2.5 of the cores; set OMP_NUM_THREADS=2",
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert accelerator_facts("cpu").warnings == ()


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    found = vlmprof(tmp_path, "plan", "quick")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.strip() == (
        "vlmprof: Windows is not supported; run vlmprof in the Windows Subsystem for Linux (WSL)"
    )


@pytest.mark.slow
def test_a_sweep_runs_on_an_emulated_mac(tmp_path: Path) -> None:
    words = ("--backbone", "vmamba-t", "--resolution", "64", "--iterations", "2", "--warm-up", "1")
    path = os.pathsep.join((str(ROOT / "tests/helpers/macos"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "vlmprof", "sweep", *words, "--no-profile", "--out", "run"],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mps is not used: torch's events on Apple's GPU may hang" in done.stdout
    (row,) = map(json.loads, (tmp_path / "run/rows.jsonl").read_text().splitlines())
    assert row["status"] == "ok"
    assert row["backends"]["ss2d"] == "torch"
    assert {*row["backends"].values()} == {"torch"}
    assert row["cpu_clock_mean_mhz"] is None
    assert row["peak_rss_bytes"] > row["weight_bytes"]
    assert row["peak_rss_vision_bytes"] is None  # a Mac cannot reset the peak between stages
    assert json.loads((tmp_path / "run/run.json").read_text())["environment"]["device"] == "cpu"
