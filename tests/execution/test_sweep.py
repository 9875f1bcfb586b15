"""Whole sweeps on this machine's CPU, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import vlmprof
from vlmprof.measure.statistics import FEWEST

STAGES = ("preprocess", "vision", "connector", "prefill", "decode")

SmallRun = tuple[Path, list[dict[str, Any]], subprocess.CompletedProcess[str]]
"""The folder that a sweep ran in, its rows, and how it ended."""


def sweep(folder: Path, *options: str, formats: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return vlmprof(folder, "sweep", "quick", "--out", "run", *options, formats=formats)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    folder = tmp_path_factory.mktemp("small")
    chosen = {
        "--backbone": ["vit-t", "vmamba-t"],
        "--resolution": ["64", "96x64", "70"],
        "--stages": STAGES,
        "--warm-up": ["1"],
        "--iterations": ["3"],
        "--prompt-tokens": ["4"],
        "--new-tokens": ["2"],
    }
    words = (word for name in chosen for value in chosen[name] for word in (name, value))
    ended = sweep(folder, *words, formats=("png", "pdf"))
    assert ended.returncode == 0, ended.stderr
    return folder, rows(folder), ended


def test_every_number_is_there_and_the_parts_make_the_whole(small_run: SmallRun) -> None:
    _, found, _ = small_run
    measured = [row for row in found if row["status"] == "ok"]
    assert len(measured) == 5
    for row in measured:
        parts = sum(row[f"host_{stage}_s"] for stage in STAGES)
        assert parts <= row["end_to_end_s"] < parts + 0.05
        assert row["ttft_s"] + 2 * row["tpot_s"] == pytest.approx(row["end_to_end_s"], rel=1e-6)
        assert row["decode_tokens_per_s"] == pytest.approx(2 / row["host_decode_s"])
        assert row["cache_bytes"] == 6 * 384 * 2 * 4 * (row["visual_tokens"] + 4 + 2)
        assert row["baseline_rss_bytes"] < row["peak_rss_bytes"]
        assert row["weight_bytes"] == sum(
            row[f"weight_{s}_bytes"] for s in ("vision", "connector", "prefill")
        )
        assert (row["warm_up"], row["iterations"]) == (1, 3)
        tokens = row["visual_tokens"]
        assert row["encoder_tokens"] == tokens
        # two products of the connector: d_model to hidden and hidden to hidden, 1 MAC = 2 FLOPs
        products = 2 * tokens * ({"vit-t": 192, "vmamba-t": 384}[row["backbone"]] * 384 + 384 * 384)
        assert products <= row["counted_connector_flops"] < 1.05 * products


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "iterations", "measured_s", "unmet"),
    [
        pytest.param(("--target", "90%", "--budget", "99s"), (6, 900), (0.5, 60), False, id="target"),
        pytest.param(("--target", "0.001%", "--budget", "1s"), (2, 1000), (1, 2), True, id="budget"),
        pytest.param(
            ("--target", "0.001%", "--budget", "99s", "--iterations", "9"), (9, 9), (0, 60), True, id="most"
        ),
    ],
)
def test_adaptive_sampling_ends_at_what_comes_first(
    tmp_path: Path,
    asked: tuple[str, ...],
    iterations: tuple[int, int],
    measured_s: tuple[float, float],
    unmet: bool,
) -> None:
    chosen = ("--backbone", "vit-t", "--resolution", "48", "--sampling", "adaptive", *asked)
    ended = sweep(tmp_path, *chosen)
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(tmp_path)
    samples = json.loads((tmp_path / "run" / "samples" / f"{row['cell_id']}.json").read_text())
    end_to_end_s = samples["end_to_end_s"]
    assert len(end_to_end_s) == row["iterations"]
    assert iterations[0] <= row["iterations"] <= iterations[1]
    assert measured_s[0] <= sum(end_to_end_s) < measured_s[1]
    # of fewer than six iterations, as on a busy machine, no interval is known
    said = "not within" if row["iterations"] >= FEWEST else "intervals of medians unknown"
    assert any(said in warning for warning in row["warnings"]) == unmet


def test_rows_carry_what_was_achieved_beside_what_the_device_reaches(small_run: SmallRun) -> None:
    folder, found, _ = small_run
    reached = json.loads((folder / "run" / "run.json").read_text())["environment"]["ceilings"]["float32"]
    for row in (row for row in found if row["status"] == "ok"):
        assert row["matmul_ceiling_flops_per_s"] == reached["matmul_ceiling_flops_per_s"] > 1e8
        assert row["copy_ceiling_bytes_per_s"] == reached["copy_ceiling_bytes_per_s"] > 1e8
        for stage in ("vision", "connector", "prefill", "decode"):
            for work in ("flops", "bytes"):
                rate = row[f"counted_{stage}_{work}"] / row[f"host_{stage}_s"]
                assert row[f"achieved_{stage}_{work}_per_s"] == pytest.approx(rate)
        assert row["achieved_vision_flops_per_s"] < row["matmul_ceiling_flops_per_s"]


@pytest.fixture(scope="module")
def compiled_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    folder = tmp_path_factory.mktemp("compiled")
    chosen = ("--backbone", "vit-t", "--resolution", "32", "--iterations", "1", "--new-tokens", "1")
    stages = [option for name in STAGES for option in ("--stages", name)]
    ended = sweep(folder, *chosen, *stages, "--mode", "compile", "--mode", "eager")
    assert ended.returncode == 0, ended.stderr
    return folder, rows(folder), ended


@pytest.mark.slow
def test_compiling_is_told_apart_and_ends_cleanly(compiled_run: SmallRun) -> None:
    _, (compiled, eager), ended = compiled_run
    assert "leaked" not in ended.stderr
    assert 0.1 < compiled["compile_s"] <= compiled["first_iteration_s"]
    assert eager["compile_s"] is None


@pytest.mark.slow
def test_a_mode_that_decoding_does_not_follow_is_said(compiled_run: SmallRun) -> None:
    _, (compiled, eager), _ = compiled_run
    said = [[w for w in row["warnings"] if "decode" in w] for row in (compiled, eager)]
    assert [len(words) for words in said] == [1, 0]
    assert "mode compile" in said[0][0]


@pytest.mark.slow
def test_an_attention_backend_that_does_not_take_the_tensors_is_said_in_a_line(tmp_path: Path) -> None:
    # no device has a float32 kernel of cuDNN's
    chosen = ("--backbone", "vit-t", "--resolution", "32", "--iterations", "1", "--dtype", "float32")
    sweep(tmp_path, *chosen, "--attention", "math", "--attention", "cudnn")
    math, cudnn = rows(tmp_path)
    assert math["status"] == "ok"
    assert cudnn["status"] == "error"
    assert cudnn["message"].startswith(
        "attention cudnn does not support this model's tensors in float32 on c"
    )


@pytest.mark.slow
def test_a_kernel_backend_that_cannot_run_here_is_an_error_and_no_other_takes_its_place(
    tmp_path: Path,
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("Triton runs here")
    chosen = ("--backbone", "vmamba-t", "--resolution", "32", "--stages", "preprocess", "--stages", "vision")
    asked = ("--kernel-backend", "reference", "--kernel-backend", "triton", "--iterations", "1")
    sweep(tmp_path, *chosen, *asked)
    reference, triton = rows(tmp_path)
    assert (reference["status"], reference["backends"]["ss2d"]) == ("ok", "reference")
    assert triton["status"] == "error"
    assert "'triton' cannot run" in triton["message"]


def test_a_cpu_has_no_gpu_numbers_and_no_copies_of_the_hosts(small_run: SmallRun) -> None:
    import torch

    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator here")
    _, found, _ = small_run
    for row in found:
        assert [value for name, value in row.items() if name.startswith("gpu_")] == [None] * 15


def test_a_size_that_one_backbone_cannot_take_is_a_skipped_row(small_run: SmallRun) -> None:
    _, found, _ = small_run
    (skipped,) = [row for row in found if row["status"] == "skipped"]
    assert (skipped["backbone"], skipped["resolution"]) == ("vit-t", "70")
    assert "nearest accepted size is 64 or 80" in skipped["message"]


def test_samples_are_kept_and_rows_are_their_means(small_run: SmallRun) -> None:
    folder, found, _ = small_run
    for row in found:
        if row["status"] == "ok":
            samples = json.loads((folder / "run" / "samples" / f"{row['cell_id']}.json").read_text())
            assert set(samples) == {name for name in samples if len(samples[name]) == 3}
            for name, values in samples.items():
                assert row[name] == pytest.approx(sum(values) / 3)


def test_the_run_says_what_made_it_and_names_no_place(small_run: SmallRun) -> None:
    folder, _, _ = small_run
    manifest = json.loads((folder / "run" / "run.json").read_text())
    assert manifest["command"].startswith("vlmprof sweep quick --out run --backbone vit-t")
    assert manifest["environment"]["packages"]["torch"]
    assert str(folder) not in json.dumps(manifest)


def test_the_figure_and_the_table_are_left(small_run: SmallRun) -> None:
    folder, _, ended = small_run
    assert (folder / "run" / "six_panel.png").stat().st_size > 10_000
    assert (folder / "run" / "six_panel.pdf").read_bytes().startswith(b"%PDF")
    assert "VMamba-T" in ended.stdout


@pytest.mark.slow
def test_plotting_again_loads_no_torch(small_run: SmallRun) -> None:
    folder, _, _ = small_run
    code = (
        "import sys; sys.argv = ['vlmprof', 'plot', 'run', '--format', 'svg', '--log']\n"
        "from vlmprof.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=120)
    assert (folder / "run" / "six_panel.svg").read_text().startswith("<?xml")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a CPU's memory limit needs Linux")
def test_a_memory_limit_makes_a_cpu_run_out_for_real(tmp_path: Path) -> None:
    ended = sweep(
        tmp_path, "--backbone", "vmamba-t", "--resolution", "256", "--resolution", "2048",
        "--resolution", "4096", "--memory-limit", "512MiB", "--warm-up", "0", "--iterations", "1",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = {row["resolution"]: row for row in rows(tmp_path)}
    assert found["256"]["status"] == "ok"
    assert (found["2048"]["status"], found["2048"]["oom_stage"]) == ("oom", "vision")
    assert found["4096"]["message"] == "already out of memory at 2048"
    assert "out of memory in vision" in ended.stdout


@pytest.mark.slow
def test_a_mode_this_device_lacks_is_a_row_that_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA graphs run here")
    ended = sweep(
        tmp_path, "--backbone", "vit-t", "--resolution", "64", "--mode", "graphs", "--attention", "math",
        "--mode", "eager", "--iterations", "2", "--share-llm",
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    found = {row["mode"]: row for row in rows(tmp_path)}
    assert "needs a CUDA device" in found["graphs"]["message"]
    assert found["eager"]["status"] == "ok"
