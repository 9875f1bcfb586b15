"""The whole-encoder benchmark: its modes, what it skips and why, and its rows beside the paper's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from vlmprof.kernels import whole

from vlmprof.cli.kernels import app
from vlmprof.cli.kernels_whole import backbone_names
from vlmprof.errors import UserError

IMAGES = torch.ones(1, 3, 4, 4)


def test_what_cannot_run_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    asked: list[str] = []

    def build(backend: str) -> whole.Encoder:
        asked.append(backend)
        return lambda images: images * 2.0

    modes = ("eager", "graphed", "fused", "fused graphed")
    rows = {row.mode: row for row in whole.encoder_latencies(build, IMAGES, modes, seconds=0.0)}
    assert asked == ["torch"]
    assert [rows[mode].status for mode in modes] == ["ok", "skipped", "skipped", "skipped"]
    assert rows["eager"].samples == 5
    assert rows["eager"].median_s is not None
    assert rows["graphed"].median_s is None
    assert "CUDA" in rows["graphed"].message
    assert "riton" in rows["fused"].message


def test_a_mode_that_fails_leaves_the_others() -> None:
    calls: list[str] = []

    def build(backend: str) -> whole.Encoder:
        calls.append(backend)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room\nfor details")
        return lambda images: images

    rows = list(whole.encoder_latencies(build, IMAGES, ("eager", "eager"), seconds=0.0))
    assert [(row.status, row.message) for row in rows] == [("oom", "no room"), ("ok", "")]


def test_ratios_are_against_the_fastest() -> None:
    assert dict(whole.speed_ups({"eager": 6.0, "fused": 2.0})) == {"eager": 3.0}
    assert list(whole.speed_ups({})) == []


def test_the_command_writes_rows_beside_the_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    kept = ("eager", "graphed")
    monkeypatch.setattr(whole.encoder_latencies, "__defaults__", (kept, 0.5))
    options = ["--backbones", "vmamba-t", "--resolution", "224", "--levels", "through-tap"]
    where = ["--device", "cpu", "--seconds", "0", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["bench", *options, *where])
    assert result.exit_code == 0, result.output
    with (tmp_path / "backbones.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["backbone"], row["mode"]) for row in rows] == [("vmamba-t", mode) for mode in kept]
    # the paper's GPU vision latency of VMamba-T at 224 pixels is 6.86 ms
    assert float(rows[0]["paper_gpu_vision_s"]) == pytest.approx(6.86e-3, abs=1e-5)
    assert float(rows[0]["median_s"]) > 0
    assert rows[1]["median_s"] == ""


def test_names_may_share_an_option() -> None:
    assert backbone_names(["vmamba-t, vmamba-s", "vmamba-b"]) == ["vmamba-t", "vmamba-s", "vmamba-b"]
    with pytest.raises(UserError, match="vmamba-t"):
        backbone_names([","])
