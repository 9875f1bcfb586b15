"""Every failure of a kernel operation results in a row, and the others are still measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.helpers.mamba_build import write_mamba
from vlmprof.cli.kernels import app
from vlmprof.errors import UserError

FAULTS = Path(__file__).parents[1] / "helpers" / "kernel_faults"
KERNELS = [sys.executable, "-m", "vlmprof", "kernels"]


def environment(faults: dict[str, str], *folders: Path) -> dict[str, str]:
    path = os.pathsep.join([*map(str, (FAULTS, *folders)), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"PYTHONPATH": path, "KERNEL_FAULTS": json.dumps(faults), "OMP_NUM_THREADS": "1"}
    without = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {**without, **more}


def run(
    folder: Path, faults: dict[str, str], *options: str, on_path: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KERNELS, *options, "--device", "cpu", "--out", "out"],
        cwd=folder, env=environment(faults, *on_path), capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip


def rows(folder: Path, stem: str) -> list[dict[str, Any]]:
    return json.loads((folder / "out" / f"{stem}.json").read_text())


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Any]:
    folder = tmp_path_factory.mktemp("verify")
    faults = {
        "selective_scan/longer than a chunk": "crash",
        "selective_scan/d_state 16": "error",
        "cross_scan/7 × 41": "hang",
        "cross_merge/7 × 41": "killed",
        "ss2d/square": "poisoned",
        "ss2d/one pixel": "device_oom",
        "ss2d/d_state 3": "aborted_oom",
        "ss2d/13 × 17, d_state 16": "quit_early",
        "norm_linear/GELU, residual": "hang",
    }
    ended = run(folder, faults, "verify", "--dtype", "float32", "--row-timeout", "8s")
    return rows(folder, "verify"), ended


@pytest.mark.slow
def test_every_comparison_has_its_row_and_the_healthy_ones_pass(verified: Any) -> None:
    found, ended = verified
    assert ended.returncode == 1, ended.stderr
    named = {(row["op"], row.get("case")): row for row in found}
    assert len(named) == len(found) == 52
    failed = {name for name, row in named.items() if not row["passed"]}
    assert failed == {
        ("selective_scan", "longer than a chunk"),
        ("selective_scan", "d_state 16"),
        ("cross_scan", "7 × 41"),
        ("cross_merge", "7 × 41"),
        ("ss2d", "square"),
        ("ss2d", "one pixel"),
        ("ss2d", "d_state 3"),
        ("ss2d", "13 × 17, d_state 16"),
        ("norm_linear", "GELU, residual"),
        ("norm_linear", None),
    }
    assert "52 comparisons on cpu, 10 failed" in ended.stdout
    assert "Traceback" not in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "case", "status", "words"),
    [
        ("selective_scan", "longer than a chunk", "error", "SIGSEGV"),
        ("selective_scan", "d_state 16", "error", "no such layout"),
        ("cross_scan", "7 × 41", "timeout", "stopped after 8 s"),
        ("ss2d", "square", "error", "CUDA error: an illegal memory access was encountered"),
        ("ss2d", "one pixel", "oom", "CUDA out of memory"),
        ("ss2d", "d_state 3", "oom", "std::bad_alloc' (SIGABRT)"),
        ("ss2d", "13 × 17, d_state 16", "error", "exit code 3"),
        ("norm_linear", "GELU, residual", "timeout", "stopped after 8 s"),
        ("norm_linear", None, "skipped", "remaining attempts not run, because an attempt hung"),
    ],
)
def test_what_happened_is_said(verified: Any, op: str, case: str | None, status: str, words: str) -> None:
    found, ended = verified
    (row,) = [row for row in found if (row["op"], row.get("case")) == (op, case)]
    assert row["status"] == status
    assert words in row["message"]
    assert row["relative_error"] is None
    assert f"{words}" in ended.stdout


@pytest.mark.slow
def test_an_operation_whose_processes_are_lost_again_and_again_is_given_up(tmp_path: Path) -> None:
    ended = run(tmp_path, {"ss2d": "crash"}, "verify", "--dtype", "float32", "--op", "ss2d", "--op", "linear")
    found = rows(tmp_path, "verify")
    assert ended.returncode == 1
    assert [row["op"] for row in found] == ["ss2d"] * 5 + ["linear"] * 2
    assert found[4]["message"] == "remaining attempts not run, because 4 processes were lost"
    assert all(row["passed"] for row in found[5:])


@pytest.mark.slow
def test_a_bench_goes_on_after_every_fault(tmp_path: Path) -> None:
    faults = {"cross_scan": "crash", "ss2d/compiled": "crash", "linear": "hang", "norm_linear": "device_oom"}
    shape = ("--resolution", "64", "--level", "2", "--level", "3", "--seconds", "0", "--peers")
    build = write_mamba(tmp_path / "build")
    ended = run(tmp_path, faults, "bench", *shape, "--row-timeout", "8s", on_path=(build,))
    assert ended.returncode == 1, ended.stderr
    found = rows(tmp_path, "bench")
    told = {(row["op"], (row.get("shape") or "")[-1:], row.get("backend")): row["status"] for row in found}
    assert told == {
        ("selective_scan", "2", "torch"): "ok", ("selective_scan", "3", "torch"): "ok",
        ("cross_scan", "2", "torch"): "error", ("cross_scan", "3", "torch"): "error",
        ("cross_merge", "2", "torch"): "ok", ("cross_merge", "3", "torch"): "ok",
        ("ss2d", "2", "torch"): "ok", ("ss2d", "2", "compiled"): "error", ("ss2d", "2", "mamba_ssm"): "ok",
        ("ss2d", "3", "torch"): "ok", ("ss2d", "3", "compiled"): "error", ("ss2d", "3", "mamba_ssm"): "ok",
        ("norm_linear", "2", "torch"): "oom", ("norm_linear", "3", "torch"): "oom",
        ("linear", "2", "torch"): "timeout", ("linear", "", None): "skipped",
        ("norm_mlp", "2", "torch"): "ok", ("norm_mlp", "3", "torch"): "ok",
        ("depthwise_conv_silu", "2", "torch"): "ok", ("depthwise_conv_silu", "3", "torch"): "ok",
        ("layer_norm", "2", "torch"): "ok", ("layer_norm", "3", "torch"): "ok",
        ("convolution_norm", "2", "torch"): "ok", ("convolution_norm", "3", "torch"): "ok",
    }  # fmt: skip
    assert "failed: its process exited with SIGSEGV" in ended.stdout
    for row in found:
        assert row["device_name"]
        assert {"torch", "triton", "python", "commit", "driver", "gpu_clock_mean_mhz"} <= row.keys()


@pytest.mark.slow
def test_a_mode_that_crashes_leaves_the_others_and_a_peer_is_no_failure(tmp_path: Path) -> None:
    chosen = ("--backbones", "vmamba-t", "--resolution", "64", "--seconds", "0")
    modes = ("--mode", "eager", "--mode", "compile", "--mode", "fused")
    ended = run(tmp_path, {"eager": "crash", "compile": "error"}, "bench", *chosen, *modes)
    found = {row["mode"]: row for row in rows(tmp_path, "backbones")}
    assert ended.returncode == 1
    assert [row["status"] for row in found.values()] == ["error", "error", "skipped"]
    assert "SIGSEGV" in found["eager"]["message"]
    assert found["compile"]["message"] == "no such layout"
    again = run(tmp_path, {"compile": "error"}, "bench", *chosen, "--mode", "eager")
    assert again.returncode == 0, again.stderr
    assert rows(tmp_path, "backbones")[-1]["status"] == "ok"


@pytest.mark.parametrize("stem", ["bench", "backbones"])
def test_rows_of_another_device_are_left_alone(stem: str, tmp_path: Path) -> None:
    options = ["bench", "--no-isolate", "--device", "cpu", "--resolution", "64", "--seconds", "0"]
    chosen = {
        "bench": ["--level", "3", "--op", "linear"],
        "backbones": ["--mode", "eager", "--backbones", "vmamba-t"],
    }
    options += ["--out", str(tmp_path), *chosen[stem]]
    theirs = tmp_path / f"{stem}.json"
    for content, words in (
        ('[{"device_name": "NVIDIA H100"}]', "is from NVIDIA H100, but this is"),
        ('[{"median_s": 1.0}]', "does not record its device"),
    ):
        theirs.write_text(content)
        result = CliRunner().invoke(app, options)
        assert isinstance(result.exception, UserError)
        assert words in str(result.exception)
        assert theirs.read_text() == content


@pytest.mark.slow
@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running_when_the_command_is_stopped(tmp_path: Path, strike: signal.Signals) -> None:
    import psutil

    command = [
        *KERNELS,
        "verify",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--op",
        "cross_scan",
        "--out",
        "out",
    ]
    command += ["--op", "cross_merge"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment({"cross_merge": "hang"}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "verify.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, strike)
    process.communicate(timeout=60)

    def left() -> list[int]:
        found = []
        for other in psutil.process_iter():
            try:
                if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                    found.append(other.pid)
            except (ProcessLookupError, PermissionError, psutil.Error):
                continue
        return found

    while left():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert rows(tmp_path, "verify")[0]["passed"]
