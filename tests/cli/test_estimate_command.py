"""`vlmprof estimate` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from vlmprof.cli.estimate import estimate
from vlmprof.cost.accuracy import predict
from vlmprof.cost.count import count_cells
from vlmprof.cost.devices import sheet
from vlmprof.errors import UserError
from vlmprof.measure.samples import Samples
from vlmprof.plan import make_plan
from vlmprof.records import Row, StageFigures, Status
from vlmprof.render.figures.predictions import draw_predictions
from vlmprof.spec import load_spec
from vlmprof.store import RunFolder

SMALL = ["--backbone", "vit-t", "--resolution", "224", "--resolution", "448", "--resolution", "896"]


def run(*words: str) -> str:
    app = typer.Typer()
    app.command()(estimate)
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_predicts_every_cell_and_where_memory_ends() -> None:
    shown = run("quick", *SMALL, "--gpu", "rtx4090", "--memory", "256MiB")
    assert "NVIDIA GeForce RTX 4090" in shown
    assert "nothing was run" in shown
    assert "launch-bound: vision" in shown
    assert "first out of memory at 896² in prefill" in shown
    assert "fits up to 896²" in run("quick", *SMALL, "--gpu", "l4")
    limit = "256 MiB, the specification's memory_limit (NVIDIA GeForce RTX 4090 has 23.5 GiB)"
    assert f"memory for tensors: {limit}" in shown


def test_skipped_sizes_and_limits_beyond_the_card_are_said() -> None:
    sizes = ["--resolution", "64", "--resolution", "70", "--resolution", "72"]
    shown = run(
        "quick", "--backbone", "vit-t", "--backbone", "vmamba-t", *sizes, "--gpu", "l4", "--memory", "1TiB"
    )
    assert "ViT-T: fits up to 64², the largest that it accepts; 70², 72² are skipped" in shown
    assert "VMamba-T: fits up to 72², the largest in the specification" in shown
    assert "memory for tensors: 22 GiB, all that NVIDIA L4 has (memory_limit is 1024 GiB)" in shown


def test_a_connector_and_its_latency_are_two_columns() -> None:
    connectors = ["--connector", "mlp2", "--connector", "pool2"]
    shown = run("quick", "--backbone", "vit-t", "--resolution", "224", *connectors, "--gpu", "l4")
    (head,) = (line for line in shown.splitlines() if line.startswith("backbone"))
    titles = [title.strip() for title in head.split("  ") if title.strip()]
    assert len(set(titles)) == len(titles)
    assert {"connector", "connector latency"} <= set(titles)


def test_several_gpus_are_estimated_from_one_count() -> None:
    shown = run("quick", *SMALL, "--gpu", "l4", "--gpu", "rtx4090", "--costs")
    assert shown.count("estimated from counted costs") == 2
    assert shown.count("counted, not measured") == 1
    assert shown.index("NVIDIA L4") < shown.index("NVIDIA GeForce RTX 4090")


def test_it_names_what_has_measured_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--against" not in run("quick", *SMALL)
    (tmp_path / "runs" / "quick").mkdir(parents=True)
    (tmp_path / "runs" / "quick" / "rows.jsonl").touch()
    assert "use --against runs/quick to see the errors" in run("quick", *SMALL)
    assert "use --against kuo2026 to see the errors" in run("kuo2026-fig4", *SMALL)


def test_costs_are_told_by_stage() -> None:
    stages = [word for stage in ("vision", "connector", "prefill", "decode") for word in ("--stages", stage)]
    shown = run(
        "quick", "--backbone", "vit-t", "--resolution", "224", *stages, "--new-tokens", "3", "--costs"
    )
    rows = {words[2]: words[3:] for line in shown.splitlines() if len(words := line.split()) > 8}
    # 6 layers of keys and values of 384 channels for 196 tokens in float32
    assert rows["prefill"][-3:-1] == [f"{6 * 2 * 384 * 196 * 4 / 2**20:.2f}", "MiB"]
    matrices = 6 * (4 * 384**2 + 3 * 384 * 1024) + 384 * 32000
    assert float(rows["decode"][0]) == pytest.approx(3 * 2 * matrices / 1e9, rel=0.05)
    # ViT-T without its head: 5.72 million parameters less 192 * 1000 + 1000, four bytes each
    assert rows["vision"][5:7] == [f"{(5_717_416 - 193_000) * 4 / 2**20:.1f}", "MiB"]


@pytest.mark.slow
def test_this_cpu_is_estimated_in_sixteen_bits() -> None:
    shown = run("quick", "--backbone", "vit-t", "--resolution", "64", "--dtype", "bfloat16", "--gpu", "here")
    assert "fits up to 64²" in shown


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A run folder with invented latencies for two of three cells."""
    spec = load_spec("quick", {"backbone": ["vit-t"], "resolution": [224, 448, 896]})
    manifest: dict[str, Any] = {
        "spec": spec.to_json(),
        "command": "",
        "environment": {"device_name": "made up"},
    }
    with RunFolder(tmp_path / "run", manifest) as folder:
        for cell, status in zip(make_plan(spec), (Status.OK, Status.OK, Status.OOM), strict=True):
            figures = {s: StageFigures(host_s=0.5, gpu_s=0.25) for s in ("vision", "connector", "prefill")}
            folder.append(
                Row(
                    cell_id=cell.cell_id, axes=cell.axes.named,
                    height_px=cell.height_px, width_px=cell.width_px,
                    status=status, stages=figures if status is Status.OK else {},
                    end_to_end_s=1.0 if status is Status.OK else None,
                    peak_rss_bytes=700 * 2**20, baseline_rss_bytes=300 * 2**20,
                ),
                Samples(),
            )  # fmt: skip
    return tmp_path / "run"


def test_it_says_how_far_off_a_run_was(measured: Path) -> None:
    assert json.loads((measured / "run.json").read_text())["spec"]["name"] == "quick"
    shown = run("quick", *SMALL, "--gpu", "l40s", "--against", str(measured))
    lines = [line.split() for line in shown.splitlines() if "gpu_vision_s" in line or "peak_rss" in line]
    assert [line[2] for line in lines] == ["2", "2"], "out of memory is no latency"
    rates = run("quick", *SMALL, "--gpu", "l40s", "--against", str(measured), "--rates")
    prefill = [line.split() for line in rates.splitlines() if " prefill " in line and "250 ms" in line]
    # 196 tokens through the six layers and the vocabulary of llama-23m, in 0.25 s
    matrices = 6 * (4 * 384**2 + 3 * 384 * 1024) + 384 * 32000
    attention = 6 * 4 * 384 * (196 * 197 // 2)
    assert float(prefill[0][5]) == pytest.approx((2 * 196 * matrices + attention) / 0.25e12, rel=0.05)
    fitted = run("quick", *SMALL, "--gpu", "l40s", "--against", str(measured), "--refit")
    assert "fitted to" in fitted
    assert "left out" in fitted


def test_mistakes_are_one_line(measured: Path) -> None:
    with pytest.raises(UserError, match="unknown GPU 'h2000'"):
        run("quick", *SMALL, "--gpu", "h2000")
    with pytest.raises(UserError, match="--refit needs --against"):
        run("quick", *SMALL, "--refit")
    with pytest.raises(UserError, match="published"):
        run("quick", *SMALL, "--kernels", "theirs")
    with pytest.raises(UserError, match="has none of these cells"):
        run("quick", "--backbone", "vit-s", "--resolution", "224", "--against", str(measured))


@pytest.mark.slow
def test_a_figure_of_estimates_says_that_it_is_one(tmp_path: Path) -> None:
    shown = run("quick", *SMALL, "--gpu", "l4", "--memory", "256MiB", "--figure", str(tmp_path / "figures"))
    for name in ("estimates-l4.png", "estimates-l4.pdf", "front-l4.png", "ttft-l4.png"):
        assert (tmp_path / "figures" / name).stat().st_size > 0
        assert f"{tmp_path}/figures/{name}" in shown.replace("\n", "")
    spec = load_spec("quick", {"backbone": ["vit-t"], "resolution": ["224", "896"]})
    predictions = predict(count_cells(make_plan(spec), spec.settings), sheet("l4"), None, 256 << 20)
    figure = draw_predictions(predictions, "NVIDIA L4")
    assert all(axes.get_title().endswith(", estimated") for axes in figure.axes)
    assert len(figure.axes) == 6
    legend = figure.legends[0]
    assert legend.get_title().get_text().startswith("Estimated for NVIDIA L4 from counted costs")
    fits, too_large = predictions
    assert too_large.estimate.oom_stage == "prefill"
    end_to_end_ms = [
        value for line in figure.axes[2].lines for value in np.asarray(line.get_ydata(), dtype=float)
    ]
    assert 1000 * fits.estimate.end_to_end_s == pytest.approx(end_to_end_ms[0])
    assert 1000 * too_large.estimate.end_to_end_s not in [pytest.approx(value) for value in end_to_end_ms]
