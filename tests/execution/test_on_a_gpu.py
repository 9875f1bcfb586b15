"""Tests that need a GPU: clock, graphs, busy times, telemetry, memory, fused kernels, a second GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.checks import known
from vlmprof.backbones import create_backbone
from vlmprof.kernels.common.graph import Graphed
from vlmprof.settings import KernelBackend

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


def sweep(folder: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "vlmprof", "sweep", "quick", "--out", "run", "--dtype", "bfloat16"]
    ended = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in (folder / "run" / "rows.jsonl").read_text().splitlines()]


def test_every_mode_is_measured_on_both_clocks_and_watched(tmp_path: Path) -> None:
    modes = ("--mode", "eager", "--mode", "compile", "--mode", "graphs")
    chosen = ("--backbone", "vit-t", "--backbone", "vmamba-t", "--resolution", "224")
    rows = sweep(tmp_path, "--device", DEVICE, *chosen, *modes, "--warm-up", "5", "--iterations", "200")
    assert [row["status"] for row in rows] == ["ok"] * 6, [row["message"] for row in rows]
    for row in rows:
        for stage in ("vision", "prefill"):
            busy_s, gpu_s, host_s = (row[f"{kind}_{stage}_s"] for kind in ("gpu_busy", "gpu", "host"))
            assert 0 < busy_s < 1.2 * gpu_s < 1.2 * row["end_to_end_s"]
            assert 0 < host_s < row["end_to_end_s"]
        assert row["weight_bytes"] < row["peak_allocated_bytes"] <= row["peak_reserved_bytes"]
        assert row["gpu_clock_mean_mhz"] > 100
        assert row["gpu_power_mean_w"] > 10
        if row["backbone"] == "vmamba-t":
            assert row["backends"]["ss2d"] == "triton"
    latency_s = {(row["backbone"], row["mode"]): row["gpu_vision_s"] for row in rows}
    # launch-bound at this size: replaying one graph cannot be slower than launching every kernel
    assert latency_s["vmamba-t", "graphs"] < latency_s["vmamba-t", "eager"]


def test_out_of_memory_is_a_row_and_the_next_cell_runs(tmp_path: Path) -> None:
    limited = ("--memory-limit", "2GiB", "--run-after-oom")
    sizes = ("--resolution", "224", "--resolution", "6144", "--resolution", "256")
    chosen = ("--backbone", "vitdet-b", "--stages", "vision", "--warm-up", "1", "--iterations", "2")
    rows = sweep(tmp_path, "--device", DEVICE, *chosen, *sizes, *limited)
    found = {row["resolution"]: row for row in rows}
    assert {size: row["status"] for size, row in found.items()} == {"224": "ok", "6144": "oom", "256": "ok"}
    assert found["6144"]["oom_stage"] in ("build", "vision")
    assert "under a limit of 2 GiB" in found["6144"]["message"]


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (352, 32)], ids=str)
def test_fused_and_plain_kernels_give_the_same_features(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    features = {}
    with torch.inference_mode():
        built: tuple[tuple[KernelBackend, torch.dtype], ...] = (
            ("torch", torch.float32),
            ("triton", torch.float32),
            ("triton", torch.bfloat16),
        )
        for kernels, dtype in built:
            model = create_backbone(
                "vmamba-t", levels="all", image_size=size, device=DEVICE, dtype=dtype, kernels=kernels
            )
            features[kernels, dtype] = model(images.to(DEVICE, dtype)).float()
    exact = features["torch", torch.float32]
    for dtype, limit in ((torch.float32, 2e-3), (torch.bfloat16, 0.1)):
        assert float((features["triton", dtype] - exact).norm() / exact.norm()) < limit


def test_a_graph_gives_what_the_call_gives_wherever_its_input_lies() -> None:
    model = create_backbone("vmamba-t", image_size=(64, 64), device=DEVICE, dtype=torch.bfloat16)
    first, second = (torch.randn(1, 3, 64, 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    with torch.inference_mode():
        replayed = Graphed(model)
        for images in (first, second, first):
            wanted = model(images.clone())
            assert torch.equal(replayed(images.clone()), wanted)


def test_the_compiler_and_a_graph_take_the_operators() -> None:
    from vlmprof.kernels import ss2d
    from vlmprof.kernels.tools.cases import ss2d_case

    case = ss2d_case("compiled", torch.bfloat16, torch.device(DEVICE), (1, 28, 28, 384), 12, 1)
    x, *parameters = (known(argument) for argument in case.arguments)
    with torch.inference_mode():
        wanted = ss2d(x, *parameters)
        compiled = torch.compile(lambda x: ss2d(x + 0.0, *parameters), fullgraph=True)
        assert torch.equal(compiled(x), wanted)
        assert torch.equal(Graphed(lambda x: ss2d(x, *parameters))(x), wanted)


def test_a_second_gpu_is_timed_by_its_own_clock(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    chosen = ("--backbone", "vit-t", "--resolution", "224", "--warm-up", "5", "--iterations", "20")
    (row,) = sweep(tmp_path, "--device", "cuda:1", *chosen, "--stages", "vision")
    assert row["status"] == "ok", row["message"]
    assert 0.3 * row["host_vision_s"] < row["gpu_vision_s"] <= row["end_to_end_s"]
