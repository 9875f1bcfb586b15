"""The host side of a GPU without a GPU: launches, graphs, telemetry, memory, but no results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.simulated_gpu.simulate import environment, why_not
from vlmprof.analysis.reference import load_reference
from vlmprof.cost.count import count_cell
from vlmprof.cost.devices import sheet
from vlmprof.plan import make_plan
from vlmprof.spec import load_spec

pytestmark = pytest.mark.slow
H200 = sheet("h200")

if torch.cuda.is_available():
    pytest.skip("there is a real one", allow_module_level=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with two H200s."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return {**os.environ, **environment(tmp_path_factory.mktemp("gpu")), "SIMULATED_GPUS": "2"}


def sweep(machine: dict[str, str], folder: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "vlmprof", "sweep", "quick", "--dtype", "bfloat16", "--out", "run"]
    ended = subprocess.run(
        [*command, *options], cwd=folder, env=machine, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in (folder / "run" / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_every_mode_launches_and_is_watched(device: str, machine: dict[str, str], tmp_path: Path) -> None:
    chosen = ("--backbone", "vit-t", "--backbone", "vmamba-t", "--resolution", "224", "--device", device)
    modes = ("--mode", "eager", "--mode", "compile", "--mode", "graphs", "--cache", "hot", "--cache", "cold")
    rows = sweep(machine, tmp_path, *chosen, *modes, "--warm-up", "3", "--iterations", "40")
    assert [row["status"] for row in rows] == ["ok"] * 12, [row["message"] for row in rows]
    for row in rows:
        assert 0 < row["gpu_busy_vision_s"] < 1.1 * row["gpu_vision_s"] < 1.1 * row["end_to_end_s"]
        assert row["weight_bytes"] < row["peak_allocated_bytes"] <= row["peak_reserved_bytes"]
        if row["backbone"] == "vmamba-t":
            assert set(row["backends"].values()) == {"triton"}


def test_an_older_gpu_runs_without_fused_kernels_and_its_rows_say_so(
    machine: dict[str, str], tmp_path: Path
) -> None:
    chosen = (
        "--backbone",
        "vmamba-t",
        "--backbone",
        "mambavision-t",
        "--resolution",
        "64",
        "--device",
        "cuda",
    )
    turing = {**machine, "SIMULATED_CAPABILITY": "7.5"}
    rows = sweep(turing, tmp_path, *chosen, "--dtype", "float16", "--warm-up", "1", "--iterations", "2")
    for row in rows:
        assert row["status"] == "ok", row["message"]
        assert {*row["backends"].values()} - {"sdpa"} == {"torch"}
        assert (
            "without fused kernels, in plain torch: "
            "the kernels need compute capability 8.0, and this GPU has 7.5" in row["warnings"]
        )


def test_energy_is_of_one_image_and_takes_a_window_that_its_counter_can_see(
    machine: dict[str, str], tmp_path: Path
) -> None:
    chosen = ("--backbone", "vit-t", "--resolution", "224", "--batch-size", "2", "--device", "cuda")
    found = []
    for least in ("2s", "0.1s"):
        folder = tmp_path / least
        folder.mkdir()
        rows = sweep(machine, folder, *chosen, "--target", "99%", "--budget", "9s", "--least", least)
        found.append(rows[0])
    long, short = found
    # the simulated board draws 300 W whatever runs
    assert long["energy_per_image_j"] == pytest.approx(300 * long["end_to_end_s"] / 2, rel=0.4)
    assert short["energy_per_image_j"] is None


def test_running_out_of_memory_is_a_row_and_the_next_cell_runs(
    machine: dict[str, str], tmp_path: Path
) -> None:
    sizes = ("--resolution", "224", "--resolution", "6144", "--resolution", "256", "--run-after-oom")
    chosen = ("--backbone", "vitdet-b", "--stages", "vision", "--warm-up", "1", "--iterations", "2")
    rows = sweep(machine, tmp_path, "--device", "cuda", *chosen, *sizes, "--memory-limit", "2GiB")
    found = {row["resolution"]: row["status"] for row in rows}
    assert found == {"224": "ok", "6144": "oom", "256": "ok"}


def test_the_published_memory_is_reached_by_the_settings_it_tells_of(
    machine: dict[str, str], tmp_path: Path
) -> None:
    backbones = ("vit-t", "vit-l", "vitdet-b", "vmamba-t")
    chosen = [option for name in backbones for option in ("--backbone", name)]
    sizes = ("--resolution", "224", "--resolution", "2048", "--resolution", "3072")
    stages = ("--stages", "vision", "--stages", "connector", "--stages", "prefill", "--levels", "all")
    settings = ("--autocast", "--outputs", "kept", "--device", "cuda", "--llm", "vicuna-7b")
    rows = sweep(
        machine, tmp_path, *chosen, *sizes, *stages, *settings, "--warm-up", "1", "--iterations", "1"
    )
    published = load_reference("kuo2026").set_index(["backbone", "resolution"])["peak_allocated_bytes"]
    for row in rows:
        if (row["backbone"], row["resolution"]) == ("vitdet-b", "3072"):
            assert row["status"] == "oom"
        elif (row["backbone"], row["resolution"]) != ("vit-l", "3072"):
            wanted = published[row["backbone"], row["resolution"]]
            assert row["peak_allocated_bytes"] == pytest.approx(wanted, rel=0.04), row["cell_id"]


def test_counted_peaks_are_the_allocators(machine: dict[str, str], tmp_path: Path) -> None:
    backbones = ("vmamba-t", "vmamba-b", "vmamba-t-v0", "mambavision-t", "vit-b", "swin-t")
    chosen = [option for name in backbones for option in ("--backbone", name)]
    sizes = ("--resolution", "224", "--resolution", "448", "--resolution", "1024")
    asked = (*chosen, *sizes, "--stages", "vision", "--device", "cuda")
    rows = sweep(machine, tmp_path, *asked, "--warm-up", "1", "--iterations", "1")
    assert len(rows) == 18
    spec = load_spec("quick", {"backbone": backbones, "resolution": [224, 448, 1024], "dtype": "bfloat16"})
    cells = {cell.cell_id: cell for cell in make_plan(spec)}
    for row in rows:
        settings = replace(spec.settings, stages=("vision",))
        counted = count_cell(cells[row["cell_id"]], settings).peak_allocated_bytes + H200.workspace_bytes
        assert counted == pytest.approx(row["peak_allocated_bytes"], rel=0.05), row["cell_id"]


def test_sharing_the_llm_changes_no_peak_and_no_oom(machine: dict[str, str], tmp_path: Path) -> None:
    backbones = (
        "--backbone",
        "vit-t",
        "--backbone",
        "vitdet-b",
        "--resolution",
        "1024",
        "--resolution",
        "1536",
    )
    settings = ("--llm", "vicuna-7b", "--outputs", "kept", "--memory-limit", "19GiB", "--device", "cuda")
    found = []
    for share in ("--no-share-llm", "--share-llm"):
        folder = tmp_path / share
        folder.mkdir()
        rows = sweep(machine, folder, *backbones, *settings, share, "--warm-up", "1", "--iterations", "1")
        found.append({(row["backbone"], row["resolution"]): row for row in rows})
    whole, shared = found
    assert shared["vitdet-b", "1024"]["llm_shared_from"] == shared["vit-t", "1024"]["cell_id"]
    assert {row["status"] for row in whole.values()} == {"ok", "oom"}
    for cell, row in whole.items():
        assert shared[cell]["status"] == row["status"]
        if row["status"] == "ok":
            assert shared[cell]["peak_allocated_bytes"] == pytest.approx(
                row["peak_allocated_bytes"], rel=1e-4
            )


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_quantized_llms_hold_what_is_counted(machine: dict[str, str], tmp_path: Path) -> None:
    precisions = ("as-dtype", "int8-dynamic", "int4-weight", "fp8")
    chosen = [option for name in precisions for option in ("--llm-precision", name)]
    asked = ("--backbone", "vit-t", "--resolution", "32", *chosen, "--device", "cuda", "--no-profile")
    rows = sweep(machine, tmp_path, *asked, "--warm-up", "1", "--iterations", "1")
    assert [row["status"] for row in rows] == ["ok"] * 4, [row["message"] for row in rows]
    wanted = {
        "backbone": ["vit-t"], "resolution": [32], "dtype": "bfloat16", "llm_precision": list(precisions)
    }  # fmt: skip
    spec = load_spec("quick", wanted)
    counted = [count_cell(cell, spec.settings) for cell in make_plan(spec)]
    assert [row["weight_prefill_bytes"] for row in rows] == [
        c.stages["prefill"].weight_bytes for c in counted
    ]
    saved = [counted[0].stage_peak_bytes("prefill") - c.stage_peak_bytes("prefill") for c in counted]
    peaks = [row["peak_allocated_prefill_bytes"] for row in rows]
    assert [peaks[0] - peak for peak in peaks] == pytest.approx(saved, abs=2**20)
    formats = [row["backends"].get("llm_linear", "").split(" ")[0] for row in rows]
    assert formats == ["", "Int8Tensor", "Int4TilePackedTo4dTensor", "Float8Tensor"]
    waits = [any("waits for the GPU" in words for words in row["warnings"]) for row in rows]
    assert waits == [name == "int8-dynamic" for name in precisions]
