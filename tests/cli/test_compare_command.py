"""`vlmprof compare`: ratios and verdicts, the guard's exit code, the paper's points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.commands import invoke
from tests.helpers.synthetic_runs import cell, samples, sweep, write_run
from vlmprof.errors import UserError
from vlmprof.records import Status


def another(path: Path, scale: float, **options: Any) -> Path:
    chosen: dict[str, Any] = {"oom_from": {"vmamba-t": 1024}} | options
    rows = sweep(scale=scale, **chosen)
    return write_run(path, rows, samples(rows, spread=0.01, seed=1))


def test_compare_prints_ratios_and_verdicts(run: Path, tmp_path: Path) -> None:
    result = invoke("compare", run, another(tmp_path / "after", 0.9))
    assert result.exit_code == 0
    (line,) = [
        line
        for line in result.output.splitlines()
        if "ViT-S" in line and "512²" in line and "end-to-end" in line
    ]
    assert "0.900 (0.8" in line
    assert "faster" in line
    assert "End-to-end, B against A: 17 faster." in result.output


def test_printed_tables_are_written_where_asked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    invoke("compare", run, another(tmp_path / "after", 0.9), "--save-tables", out)
    ratios = pd.read_csv(out / "comparison.csv")
    assert ratios["B / A"].tolist() == pytest.approx(
        [0.9 if "peak" not in f else 1 for f in ratios["figure"]]
    )
    assert (ratios["B / A low"].dropna() < 0.9).all()
    invoke("recommend", run, "--max-memory", "2GiB", "--format", "svg", "--save-tables", out)
    suffixes = ("csv", "md", "tex")
    named = {f"{name}.{suffix}" for name in ("comparison", "recommended") for suffix in suffixes}
    assert {path.name for path in out.iterdir()} == named


def test_the_guard_sets_the_exit_code(run: Path, tmp_path: Path) -> None:
    assert invoke("compare", run, another(tmp_path / "same", 1.0), "--fail-slower", "5%").exit_code == 0
    slower = invoke("compare", run, another(tmp_path / "slower", 1.1), "--fail-slower", "5%")
    assert slower.exit_code == 1
    assert "slower than allowed: ViT-T at 224², end-to-end: 1.10 (1.0" in slower.output
    assert invoke("compare", run, another(tmp_path / "a bit", 1.1), "--fail-slower", "20%").exit_code == 0
    lost = invoke(
        "compare", run, another(tmp_path / "lost", 1.0, oom_from={"vit-t": 512}), "--fail-slower", "5%"
    )
    assert lost.exit_code == 1
    assert "ViT-T at 512² ran in A but not in B" in lost.output


def test_compare_with_the_paper(tmp_path: Path) -> None:
    axes = {"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "all"}
    rows = sweep(("vit-t", "vmamba-t"), (512, 1024), axes=axes)
    mine = write_run(tmp_path / "mine", rows, samples(rows))
    result = invoke("compare", mine, "--reference", "kuo2026", "--figure", "end_to_end_s")
    assert result.exit_code == 0
    assert len([line for line in result.output.splitlines() if "end-to-end" in line and "×" in line]) == 4


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("NVIDIA H100 80GB HBM3", "from an NVIDIA H200, but this is NVIDIA H100 80GB HBM3"),
        ("NVIDIA GH200 480GB", "this is NVIDIA GH200"),
        ("NVIDIA H200 MIG 1g.18gb", "this is NVIDIA H200 MIG"),
        (None, "the device of this run is unknown"),
    ],
)
def test_on_another_card_than_the_papers_there_is_no_verdict(
    device: str | None, words: str, tmp_path: Path
) -> None:
    axes = {"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "all"}
    # ten times as slow as the paper's 0.179 s, and out of memory where the paper's card is not
    rows = [cell("vit-b", 1024, axes=axes, end_to_end_s=1.79, device=device)]
    rows.append(cell("vit-b", 2048, axes=axes, status=Status.OOM, device=device))
    mine = write_run(tmp_path / "mine", rows, samples(rows))
    guarded = ("--reference", "kuo2026", "--figure", "end_to_end_s", "--fail-slower", "5%")
    result = invoke("compare", mine, *guarded)
    output = " ".join(result.output.split())
    assert result.exit_code == 0, output
    assert words in output
    assert "No verdict on any cell" in output
    assert "--fail-slower has no effect" in output
    assert "10" in output
    for verdict in ("1 slower", "1 faster", "slower than allowed"):
        assert verdict not in output


@pytest.mark.parametrize("device", ["NVIDIA H200", "NVIDIA H200 NVL"])
def test_on_the_papers_card_the_guard_holds(device: str, tmp_path: Path) -> None:
    axes = {"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "all"}
    rows = [cell("vit-b", 1024, axes=axes, end_to_end_s=1.79, device=device)]
    mine = write_run(tmp_path / "mine", rows, samples(rows))
    result = invoke("compare", mine, "--reference", "kuo2026", "--fail-slower", "5%")
    assert result.exit_code == 1
    assert "1 slower" in result.output
    assert "slower than allowed" in result.output


def test_compare_refuses_what_it_cannot_do(run: Path, tmp_path: Path) -> None:
    for words, says in (
        ([run], "two runs"),
        ([run, run, "--fail-slower", "5"], "write it like 5%"),
        ([run, run, "--figure", "gpu_visions_s"], "did you mean gpu_vision_s"),
        ([run, write_run(tmp_path / "other", [cell("vit-l")])], "have no cell in common"),
        ([run, tmp_path / "none"], "not a run folder"),
    ):
        with pytest.raises(UserError, match=says):
            invoke("compare", *words)
    bare = write_run(tmp_path / "bare", sweep())
    with pytest.raises(UserError, match="nothing to guard"):
        invoke("compare", bare, bare, "--fail-slower", "5%")
