"""The encoder benchmark: modes, skipped modes with reasons, and rows compared with the paper."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from typer.testing import CliRunner, Result

from vlmprof.cli import kernels_rows
from vlmprof.cli.kernels import app
from vlmprof.cli.kernels_encoders import backbone_names
from vlmprof.errors import UserError
from vlmprof.execution import kernel_worker
from vlmprof.execution.kernel_runs import EncoderJob, Outcome
from vlmprof.kernels.tools import bench_encoder, bench_ops
from vlmprof.kernels.tools.official_vmamba import public_encoder
from vlmprof.settings import Mode

IMAGES = torch.ones(1, 3, 4, 4)


def test_what_cannot_run_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    asked: list[str] = []

    def build(backend: str) -> bench_encoder.Encoder:
        asked.append(backend)
        return lambda images: images * 2.0

    modes = ("eager", "graphs", "fused", "fused graphs")
    rows = {mode: bench_encoder.encoder_latency(build, IMAGES, mode, seconds=0.0) for mode in modes}
    assert asked == ["torch"]
    assert [rows[mode].status for mode in modes] == ["ok", "skipped", "skipped", "skipped"]
    assert rows["eager"].samples == 5
    assert rows["eager"].median_s is not None
    assert rows["graphs"].median_s is None
    assert "CUDA" in rows["graphs"].message
    assert "riton" in rows["fused"].message


def test_modes_are_called_as_in_a_sweep() -> None:
    assert bench_encoder.MODES[:3] == get_args(Mode)
    # a former name is known still, so that the complaint is about the other
    assert "'public' needs" in str(bench(Path(), "--mode", "graphed", "--mode", "public").exception)


def test_a_mode_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def build(backbone: str, **options: object) -> bench_encoder.Encoder:
        calls.append(backbone)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room\nfor details")
        return lambda images: images

    monkeypatch.setattr("vlmprof.backbones.create_backbone", build)
    job = EncoderJob("vmamba-t", 4, "float32", "all", ("eager", "eager"), None, 0.0)
    rows = [row for row in kernel_worker.bench_encoder("cpu", job, 0) if isinstance(row, Outcome)]
    assert [(row.status, row.message) for row in rows] == [("oom", "no room"), ("ok", "")]


def test_ratios_are_against_the_fastest() -> None:
    assert dict(kernels_rows.speed_ups({"eager": 6.0, "fused": 2.0})) == {"eager": 3.0}
    assert list(kernels_rows.speed_ups({})) == []


@pytest.mark.slow
def test_the_command_writes_rows_beside_the_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    kept = ("eager", "graphs")
    monkeypatch.setattr(bench_encoder, "MODES", kept)
    options = ["--backbones", "vmamba-t", "--resolution", "224", "--levels", "through-tap"]
    where = ["--no-isolate", "--device", "cpu", "--seconds", "0", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["bench", *options, *where])
    assert result.exit_code == 0, result.output
    with (tmp_path / "backbones.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["backbone"], row["mode"]) for row in rows] == [("vmamba-t", mode) for mode in kept]
    # the paper's GPU vision latency of VMamba-T at 224 pixels is 6.86 ms
    assert float(rows[0]["paper_gpu_vision_s"]) == pytest.approx(6.86e-3, abs=1e-5)
    assert float(rows[0]["median_s"]) > 0
    assert rows[1]["median_s"] == ""


def bench(folder: Path, *options: str) -> Result:
    where = ["--no-isolate", "--device", "cpu", "--seconds", "0", "--levels", "through-tap"]
    where += ["--out", str(folder)]
    return CliRunner().invoke(app, ["bench", "--backbones", "vmamba-t", *where, *options])


@pytest.mark.slow
def test_a_run_goes_on_where_an_earlier_one_ended(tmp_path: Path) -> None:
    assert bench(tmp_path, "--resolution", "64", "--mode", "eager").exit_code == 0
    (first,) = json.loads((tmp_path / "backbones.json").read_text())
    again = bench(tmp_path, "--resolution", "64", "--resolution", "96", "--mode", "eager")
    assert again.exit_code == 0, again.output
    rows = json.loads((tmp_path / "backbones.json").read_text())
    assert rows[0] == first
    assert [row["resolution"] for row in rows] == [64, 96]
    assert not (tmp_path / "backbones.json.part").exists()


def test_a_file_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "backbones.json").write_text('[{"backbone": "vmam')
    result = bench(tmp_path, "--resolution", "64", "--mode", "eager")
    assert isinstance(result.exception, UserError)
    assert "choose another --out" in str(result.exception)
    assert (tmp_path / "backbones.json").read_text() == '[{"backbone": "vmam'


@pytest.mark.parametrize(("mode", "words"), [("fast", "known: eager"), ("public", "needs --public")])
def test_a_mode_that_cannot_be_had_is_named(mode: str, words: str, tmp_path: Path) -> None:
    result = bench(tmp_path, "--mode", mode)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)


@pytest.mark.slow
def test_an_operation_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = bench_ops.measure

    def fails_once(work: bench_ops.Workload, *rest: Any) -> bench_ops.BenchRow:
        if work.op == "cross_scan":
            raise RuntimeError("no such layout\nand more")
        return measure(work, *rest)

    monkeypatch.setattr(bench_ops, "measure", fails_once)
    options = [
        "--no-isolate",
        "--device",
        "cpu",
        "--resolution",
        "64",
        "--level",
        "3",
        "--seconds",
        "0",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 1
    assert "failed: no such layout\n" in result.output
    rows = json.loads((tmp_path / "bench.json").read_text())
    timed = [row for row in rows if row["status"] == "ok"]
    assert len(timed) == 9
    assert "cross_scan" not in {row["op"] for row in timed}
    (failed,) = [row for row in rows if row["status"] != "ok"]
    assert (failed["op"], failed["status"], failed["median_s"]) == ("cross_scan", "error", None)
    assert failed["message"] == "no such layout"


def test_names_may_share_an_option() -> None:
    assert backbone_names(["vmamba-t, vmamba-s", "vmamba-b"]) == ["vmamba-t", "vmamba-s", "vmamba-b"]
    with pytest.raises(UserError, match="vmamba-t"):
        backbone_names([","])


PUBLIC_LAYOUT = """
import torch
class CrossScanF:
    @staticmethod
    def apply(x, *chosen): return x + len(chosen)
class CrossMergeF(CrossScanF):
    pass
def cross_scan_fn(x, *chosen): raise AssertionError("no CUDA device here")
cross_merge_fn = cross_scan_fn
"""

PUBLIC_MODEL = """
import torch
from einops import rearrange
from fvcore.nn import FlopCountAnalysis, flop_count
from timm.models.layers import DropPath, trunc_normal_
from csm_triton import cross_scan_fn, cross_merge_fn
class Level(torch.nn.Module):
    def forward(self, x): return cross_merge_fn(cross_scan_fn(x), in_channel_first=False)
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = DropPath(0.2)
        self.layers = torch.nn.ModuleList([Level(), Level()])
        self.classifier = None
def vmamba_tiny_s2l5(): return Model()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the names of the public code, and little else."""
    models = tmp_path / "classification" / "models"
    models.mkdir(parents=True)
    (models / "csm_triton.py").write_text(PUBLIC_LAYOUT)
    (models / "vmamba.py").write_text(PUBLIC_MODEL)
    return tmp_path


def test_the_public_code_is_timed_beside_ours(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path
) -> None:
    before = set(sys.modules)
    monkeypatch.setattr(bench_encoder, "MODES", ())
    options = ["--backbones", "vmamba-t", "--resolution", "32", "--public", str(checkout)]
    where = ["--no-isolate", "--device", "cpu", "--seconds", "0", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["bench", *options, *where])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "backbones.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mode"], row["status"]) for row in rows] == [("public", "ok"), ("public graphs", "skipped")]
    images = torch.zeros(1, 3, 4, 4)
    assert torch.equal(public_encoder(checkout, "vmamba-t")(images), images + 16)
    left = {name for name in set(sys.modules) - before if "timm" in name or "fvcore" in name}
    assert not left or importlib.util.find_spec("timm") is not None
    for name in ("csm_triton", f"public_vmamba:{(checkout / 'classification' / 'models').resolve()}"):
        del sys.modules[name]


def test_what_is_not_the_public_code_is_said(checkout: Path, tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        arguments = ["bench", "--no-isolate", "--device", "cpu", *options]
        with pytest.raises(UserError) as error:
            CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
        return str(error.value)

    assert "is not a checkout" in refused("--backbones", "vmamba-t", "--public", str(tmp_path / "none"))
    assert "vmamba-t" in refused("--backbones", "vit-t", "--public", str(checkout))
    assert "--levels" in refused(
        "--backbones", "vmamba-t", "--public", str(checkout), "--levels", "through-tap"
    )
