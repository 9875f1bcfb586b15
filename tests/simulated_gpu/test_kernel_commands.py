"""`vlmprof kernels` from start to end in separate processes, without results, which are not computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.simulated_gpu.simulate import environment, why_not

if torch.cuda.is_available():
    pytest.skip("there is a real one", allow_module_level=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with an H200, and with caches of its own."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("gpu")
    caches = {
        "VLMPROF_TUNING_CACHE": str(folder / "tuning.json"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    return {**os.environ, **environment(folder), **caches}


def kernels(machine: dict[str, str], folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "vlmprof", "kernels", *options]
    ended = subprocess.run(
        command, cwd=folder, env=machine, capture_output=True, text=True, timeout=900, check=False
    )
    # kernels compute nothing, so a comparison with float64 fails
    assert ended.returncode == (options[0] == "verify"), ended.stdout + ended.stderr
    return ended.stdout


def rows(folder: Path, stem: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "out" / f"{stem}.json").read_text())
    for row in found:
        assert row["device_name"] == "NVIDIA H200"
        assert torch.__version__.startswith(row["torch"])
        assert None not in (row["driver"], row["cuda"], row["triton"], row["python"])
    return found


def test_the_commands_of_a_short_loan_run_one_after_another(machine: dict[str, str], tmp_path: Path) -> None:
    out = ("--out", "out")
    kernels(machine, tmp_path, "verify", "--op", "cross_merge", "--dtype", "bfloat16", *out)
    assert [(row["backend"], row["status"]) for row in rows(tmp_path, "verify")] == [
        ("torch", "ok"),
        ("triton", "ok"),
    ]
    shape = ("--resolution", "64", "--level", "3")
    assert f"kept in {machine['VLMPROF_TUNING_CACHE']}" in kernels(machine, tmp_path, "tune", *shape)
    said = kernels(machine, tmp_path, "tune", "--op", "linear", *shape)
    assert [line.split(":")[0] for line in said.splitlines() if " ms" in line] == [
        f"vmamba-t 64 level 3 {name}" for name in ("in_proj", "out_proj", "fc1", "fc2")
    ]
    compiled = set(Path(machine["TRITON_CACHE_DIR"]).glob("**/*.cubin"))
    kernels(machine, tmp_path, "bench", "--op", "ss2d", *shape, "--seconds", "0.05", *out)
    found = {row["backend"]: row for row in rows(tmp_path, "bench")}
    assert found["triton"]["launch"].endswith("tiles by tuning")
    assert found["triton"]["gpu_clock_mean_mhz"] > 0
    assert found["triton"]["gpu_memory_clock_mean_mhz"] > 0
    # what tuning has compiled is not compiled again by another process
    assert set(Path(machine["TRITON_CACHE_DIR"]).glob("**/*.cubin")) == compiled

    chosen = ("--backbones", "vmamba-t", "--resolution", "224", "--seconds", "0.05", *out)
    said = kernels(machine, tmp_path, "bench", *chosen, "--mode", "fused", "--mode", "fused graphs")
    assert [row["status"] for row in rows(tmp_path, "backbones")] == ["ok", "ok"]
    # the paper's card, so how many times as fast as it is said
    assert "× as fast as it" in said
    assert "verdict" not in said
