"""`--json`: one object on standard output, everything for people on standard error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmprof as package
from tests.helpers.commands import only_line, vlmprof
from tests.helpers.synthetic_runs import cell, samples, write_run
from vlmprof.plan import make_plan
from vlmprof.spec import load_spec

HEAD = ["command", "schema", "vlmprof", "exit_code", "messages", "files", "tables"]
SMALL = ("quick", "--backbone", "vit-t", "--resolution", "64")
ROWS = [cell("vit-t", side, iterations=20) for side in (224, 512)]
SLOWER = [cell("vit-t", 224, scale=1.5, iterations=20), cell("vit-t", 512, iterations=20)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of which the second is slower at 224."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rows in (("before", ROWS), ("after", SLOWER)):
        write_run(folder / name, rows, samples(rows, iterations=20, spread=0.001))
    return folder


def found(*words: str, folder: Path, code: int = 0) -> dict[str, Any]:
    """The object that a command prints; nothing else is on standard output."""
    ended = vlmprof(folder, *words, "--json")
    assert ended.returncode == code, ended.stderr
    value: dict[str, Any] = json.loads(ended.stdout)
    assert list(value) == HEAD
    assert (value["schema"], value["vlmprof"], value["exit_code"]) == (1, package.__version__, code)
    assert " ".join(words).startswith(value["command"])
    for shown in value["messages"]:
        assert "".join(shown.split()) in "".join(ended.stderr.split())
    for path in value["files"]:
        assert (folder / path).is_file()
        assert path in ended.stderr
    return value


def test_a_plan_has_the_columns_of_its_future_rows(tmp_path: Path) -> None:
    (planned,) = found("plan", *SMALL, folder=tmp_path)["tables"]["plan"]
    (known,) = make_plan(load_spec("quick", {"backbone": ["vit-t"], "resolution": ["64"]}))
    assert planned["cell_id"] == known.cell_id
    assert (planned["backbone"], planned["resolution"], planned["batch_size"]) == ("vit-t", "64", 1)
    assert (planned["visual_tokens"], planned["skip_reason"]) == (16, None)


def test_a_comparison_has_ratios_with_intervals_and_the_rows_own_names(runs: Path) -> None:
    value = found("compare", "before", "after", "--fail-slower", "5%", folder=runs, code=1)
    ratios = {(row["figure"], row["resolution"]): row for row in value["tables"]["comparison"]}
    slower, same = ratios["gpu_vision_s", "224"], ratios["gpu_vision_s", "512"]
    assert slower["backbone"] == "vit-t"
    for row, changed in ((slower, 1.5), (same, 1.0)):
        assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
        assert row["ratio"] == pytest.approx(changed, rel=1e-2)
    assert (slower["verdict"], same["verdict"]) == ("slower", "same")
    assert slower["a"] == ROWS[0].stages["vision"].gpu_s
    assert ratios["peak_allocated_bytes", "224"]["a"] == ROWS[0].peak_allocated_bytes
    assert any("slower" in message for message in value["messages"])


def test_a_recommendation_is_in_base_units(runs: Path) -> None:
    value = found("recommend", "before", "--max-memory", "2GiB", "--format", "svg", folder=runs)
    best = value["tables"]["recommended"][0]
    assert best["resolution"] == "512"
    assert best["ttft_s"] == ROWS[1].end_to_end_s
    assert best["memory_bytes"] == ROWS[1].peak_reserved_bytes
    assert value["files"] == ["before/recommend.svg"]


def test_nothing_within_the_limits_is_an_object_with_the_exit_code(runs: Path) -> None:
    value = found("recommend", "before", "--max-ttft", "1us", "--format", "svg", folder=runs, code=1)
    assert "no measured cell is within the limits" in value["messages"][0]
    assert value["tables"]["recommended"] == []


def test_runs_are_listed_with_their_cells_by_status(runs: Path) -> None:
    listed = found("runs", ".", folder=runs)["tables"]["runs"]
    assert [row["run"] for row in listed] == ["after", "before"]
    assert listed[0]["cells"] == {"problem": None, "repeats": 1, "ok": 2}
    assert found("runs", "nowhere", folder=runs)["tables"] == {"runs": []}


def test_backbones_are_listed_in_numbers(tmp_path: Path) -> None:
    listed = found("backbones", "--resolution", "1333x800", folder=tmp_path)["tables"]["backbones"]
    known = {row["backbone"]: row for row in listed}
    assert known["vmamba-t"]["visual_tokens"] == 4200
    assert known["vit-t"]["d_model"] == 192


@pytest.mark.slow
def test_a_backbone_is_described_in_numbers(tmp_path: Path) -> None:
    (one,) = found("backbones", "vmamba-t", folder=tmp_path)["tables"]["backbone"]
    assert (one["visual_tokens"], one["level_shapes"][2]) == (1024, [384, 32, 32])
    assert one["flops"] > 1e10
    assert one["weight_bytes"] == pytest.approx(2 * one["parameters"], rel=0.01)


def test_types_of_vlms_are_listed_with_whether_they_run(tmp_path: Path) -> None:
    value = found("vlms", folder=tmp_path)
    runs_by_type = {row["model_type"]: row["runs"] for row in value["tables"]["vlms"]}
    assert runs_by_type["llava"] is True
    assert value["messages"][0].startswith(f"{sum(runs_by_type.values())} of {len(runs_by_type)} types run")


@pytest.mark.slow
def test_an_estimate_is_in_base_units_for_each_gpu(tmp_path: Path) -> None:
    words = ("estimate", *SMALL, "--gpu", "h200", "--gpu", "l40s", "--costs")
    tables = found(*words, folder=tmp_path)["tables"]
    fast, slow = (tables[f"estimates-{name}"][0] for name in ("h200", "l40s"))
    parts_s = sum(fast[f"{stage}_s"] for stage in ("vision", "connector", "prefill"))
    assert fast["end_to_end_s"] == pytest.approx(parts_s, rel=0.2)
    assert fast["vision_flops"] == slow["vision_flops"] == 189147648
    stages = {row["stage"]: row for row in tables["costs-triton"]}
    assert stages["vision"]["flops"] == 189147648


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "quik"),
        ("compare", "before", "nothing"),
        ("plan", "quick", "--bogus"),
        ("backbones", "vit-x"),
    ],
)
def test_a_mistake_leaves_standard_output_empty(runs: Path, words: tuple[str, ...]) -> None:
    ended = vlmprof(runs, *words, "--json")
    assert ended.returncode == 2
    assert only_line(ended).startswith("vlmprof: ")


def test_help_says_what_the_object_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words in (("plan",), ("sweep",), ("compare",), ("kernels", "verify"), ("frontier",)):
        shown = " ".join(vlmprof(tmp_path, *words, "--help").stdout.replace("│", " ").split())
        assert "schema, vlmprof, command, exit_code, messages, files and tables (" in shown


@pytest.mark.slow
def test_the_pipe_of_commands_with_processes_is_clean(tmp_path: Path) -> None:
    """Real pipes: what libraries and child processes print does not get into them."""

    def piped(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "vlmprof", *words, "--json"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
        value: dict[str, Any] = json.loads(ended.stdout)
        return value

    value = piped("sweep", *SMALL, "--iterations", "1", "--out", "run")
    (row,) = value["tables"]["cells"]
    (written,) = (json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines())
    assert row.items() <= written.items()
    assert (row["status"], row["iterations"]) == ("ok", 1)
    assert value["files"] == ["run/six_panel.png", "run/six_panel.pdf"]
    assert len(set(value["messages"])) == len(value["messages"])
    chosen = ("--op", "cross_merge", "--backend", "torch", "--dtype", "float32", "--device", "cpu")
    verdicts = piped("kernels", "verify", *chosen)["tables"]["verify"]
    assert all(row["passed"] and row["relative_error"] <= row["limit"] for row in verdicts)
    small = ("--resolution", "64", "--level", "3", "--seconds", "0.1")
    # what is given twice counts once
    bench = piped("kernels", "bench", *chosen, *chosen, *small, "--out", "timed")
    assert bench["files"] == ["timed/bench.csv", "timed/bench.json", "timed/roofline.png"]
    (timed,) = bench["tables"]["bench"]
    assert timed["quartile_low_s"] <= timed["median_s"] <= timed["quartile_high_s"]
