"""`vlmprof compare`: ratios and verdicts, the guard's exit code, the paper's points."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from tests.helpers.commands import invoke, vlmprof
from tests.helpers.synthetic_runs import cell, samples, sweep, write_run
from vlmprof.analysis.compare import compare
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.records import Status, repeat_id
from vlmprof.render.tables.comparisons import comparison_sheet
from vlmprof.render.tables.terminal import print_sheet
from vlmprof.spec import load_spec
from vlmprof.store import load_frame


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
    named = {f"{name}.{suffix}" for name in ("comparison", "recommended", "levers") for suffix in suffixes}
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
    assert "ViT-T at 512² ran in A but not in B: out of memory in vision." in lost.output
    assert "no longer runs: ViT-T at 512², out of memory in vision" in lost.output


def reasons(output: str) -> list[str]:
    """The lines before the table."""
    lines = output.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith(("backbone", "backbone ViT", "llm")))
    return [line.rstrip() for line in lines[:head]]


def test_a_missing_cell_fails_the_guard_with_the_reason_first(run: Path, tmp_path: Path) -> None:
    fewer = another(tmp_path / "fewer", 1.0, resolutions=(224, 256, 384, 512, 768))
    guarded = ("compare", run, fewer, "--fail-slower", "5%")
    result = invoke(*guarded)
    assert result.exit_code == 1
    assert reasons(result.output) == [
        "--fail-slower 5% fails: 2 missing in B",
        "missing in B: ViT-T at 1024²",
        "missing in B: ViT-S at 1024²",
        "--allow-missing accepts cells without a verdict",
    ]
    assert invoke(*guarded, "--allow-missing").exit_code == 0


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (Status.OOM, "out of memory in vision"),
        (Status.ERROR, "failed"),
        (Status.TIMEOUT, "timed out"),
    ],
)
def test_a_cell_that_no_longer_runs_fails_the_guard_also_where_missing_ones_may(
    run: Path, tmp_path: Path, status: Status, how: str
) -> None:
    rows = [row for row in sweep(oom_from={"vmamba-t": 1024}) if row.cell_id != "vit-t-512"]
    rows.append(cell("vit-t", 512, status=status))
    ended = write_run(tmp_path / "ended", rows, samples(rows, spread=0.01, seed=1))
    for options in ((), ("--allow-missing",)):
        result = invoke("compare", run, ended, "--fail-slower", "5%", *options)
        assert result.exit_code == 1
        assert reasons(result.output)[:2] == [
            "--fail-slower 5% fails: 1 no longer running",
            f"no longer runs: ViT-T at 512², {how}",
        ]


def test_too_few_samples_fail_the_guard_and_say_how_many_are_needed(run: Path, tmp_path: Path) -> None:
    rows = sweep(oom_from={"vmamba-t": 1024})
    raw = samples(rows, spread=0.01, seed=1)
    raw["vit-t-512"] = {name: values[:2] for name, values in raw["vit-t-512"].items()}
    short = write_run(tmp_path / "short", rows, raw)
    result = invoke("compare", run, short, "--fail-slower", "5%")
    assert result.exit_code == 1
    assert reasons(result.output) == [
        "--fail-slower 5% fails: 1 without enough samples",
        "no verdict, needs at least 3 iterations, B has 2: ViT-T at 512²",
        "--allow-missing accepts cells without a verdict",
    ]
    assert "No verdict on 1 cell: needs at least 3 iterations, B has 2." in result.output
    assert "no samples" not in result.output
    assert invoke("compare", run, short, "--fail-slower", "5%", "--allow-missing").exit_code == 0
    (line,) = [
        row for row in result.output.splitlines() if "512²" in row and "ViT-T" in row and "end-to" in row
    ]
    assert line.rstrip().endswith("unclear")


@pytest.mark.parametrize("samples_of_b", ["{", None])
def test_a_run_without_readable_samples_is_not_taken_to_be_exact(
    run: Path, tmp_path: Path, samples_of_b: str | None
) -> None:
    bare = write_run(tmp_path / "bare", sweep(oom_from={"vmamba-t": 1024}))
    if samples_of_b is not None:
        for cell_id in ("vit-t-224", "vit-t-512"):
            (bare / "samples" / f"{cell_id}.json").write_text(samples_of_b)
    result = invoke("compare", run, bare, "--fail-slower", "5%")
    assert result.exit_code == 1
    assert reasons(result.output)[0] == "--fail-slower 5% fails: 17 without enough samples"
    assert "B has no samples that can be read: ViT-T at 224²" in result.output


def test_settings_that_differ_are_named_in_one_line(tmp_path: Path) -> None:
    def measured(name: str, torch: str, **settings: Any) -> Path:
        spec = load_spec("quick", {"resolution": ["224"], "warm_up": 1, "iterations": 9, **settings})
        rows = [cell("vit-t", 224)]
        folder = write_run(tmp_path / name, rows, samples(rows))
        environment = {"packages": {"torch": torch}, "torch_threads": 2, "commit": name}
        manifest = {"spec": spec.to_json(), "command": name, "environment": environment}
        (folder / "run.json").write_text(json.dumps(manifest))
        return folder

    a = measured("a", "2.13", prompt_tokens=0, order="lines")
    b = measured("b", "2.14", prompt_tokens=64, order="random", memory_limit="2GiB")
    words = (
        "Settings differ: prompt_tokens is 0 in A, 64 in B; memory_limit_bytes is unset in A, "
        "2147483648 in B; torch is 2.13 in A, 2.14 in B."
    )
    assert words in " ".join(invoke("compare", a, b).output.split())
    assert "Settings differ" not in invoke("compare", a, a).output
    value = json.loads(vlmprof(tmp_path, "compare", "a", "b", "--json").stdout)
    assert words in value["messages"]
    assert value["tables"]["differences"][0] == {"name": "prompt_tokens", "a": 0, "b": 64}


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_keeps_both_values_the_ratio_and_the_verdict_on_one_line(
    run: Path, tmp_path: Path, width: int
) -> None:
    found = compare(load_frame(run), load_frame(another(tmp_path / "after", 0.9)), {}, {})
    out = io.StringIO()
    print_sheet(Console(file=out, width=width), comparison_sheet(found))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= width  # the note is folded by the terminal
    assert not [line for line in lines if "not shown" in line]
    values = r"\d (ms|µs|MiB) +[\d.]+ (ms|µs|MiB) +0\.900×  unclear"
    shown, named = Counter[str](), ""
    for line in lines:
        named = line.split(" ")[0] if line.startswith("V") else named
        shown[named] += bool(re.search(values, line))
    assert shown["ViT-S"] == 6 * 5


def test_two_runs_of_too_few_iterations_fail_the_guard(tmp_path: Path) -> None:
    rows = sweep(("vit-t",), (224,))
    run = write_run(tmp_path / "run", rows, samples(rows, iterations=2))
    result = invoke("compare", run, run, "--fail-slower", "5%")
    assert result.exit_code == 1
    assert "needs at least 3 iterations, A has 2 and B has 2" in result.output


def test_cells_that_differ_in_another_axis_are_told_apart_by_it(tmp_path: Path) -> None:
    rows = [cell("vit-t", 224, axes={"mode": mode}) for mode in ("eager", "compile")]
    a = write_run(tmp_path / "a", rows, samples(rows))
    b = write_run(tmp_path / "b", rows[:1], samples(rows))
    result = invoke("compare", a, b, "--fail-slower", "50%")
    assert "missing in B: ViT-T at 224², mode compile" in result.output


def test_an_unknown_axis_to_ignore_names_the_axes(run: Path) -> None:
    with pytest.raises(UserError, match=r"unknown axis to ignore 'typo'.*axes are backbone, batch"):
        invoke("compare", run, run, "--ignore", "typo")


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A run of the README's `mine.toml` on the paper's card, with every axis of a sweep."""
    text = (Path(__file__).parents[2] / "README.md").read_text().split("# mine.toml\n")[1].split("```")[0]
    (tmp_path / "mine.toml").write_text(text)
    cells = make_plan(load_spec(str(tmp_path / "mine.toml")))
    rows = [
        replace(cell(planned.axes.backbone, planned.axes.resolution), axes=planned.axes.named)
        for planned in cells
        if planned.skip_reason is None
    ]
    return write_run(tmp_path / "mine", rows, samples(rows))


def test_the_readmes_own_sweep_compares_with_the_paper(planned: Path) -> None:
    result = invoke("compare", planned, "--reference", "kuo2026", "--figure", "end_to_end_s")
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if "end-to-end" in line and "×" in line]
    compared = {tuple(line.split()[:2]) for line in lines}
    assert {(name, size) for name in ("ViT-S", "ViT-B") for size in ("512²", "1024²")} <= compared
    assert not any(name == "VMamba-T" for name, _ in compared)
    said = " ".join(result.output.split())
    assert "levels is all in A and through-tap in B; --ignore levels compares them anyway" in said
    ignoring = invoke("compare", planned, "--reference", "kuo2026", "--ignore", "levels")
    assert "VMamba-T" in ignoring.output


def test_the_table_says_whether_it_had_the_spread_between_repeats(run: Path, tmp_path: Path) -> None:
    def repeated(name: str, count: int) -> Path:
        rows = [
            cell("vit-t", 224, scale=1 + n / 100, cell_id=repeat_id("vit-t-224", n), repeat=n)
            for n in range(1, count + 1)
        ]
        return write_run(tmp_path / name, rows, samples(rows, spread=0.01))

    def said(a: Path, b: Path) -> str:
        return " ".join(invoke("compare", a, b).output.split())

    three, two, one = repeated("three", 3), repeated("two", 2), repeated("one", 1)
    assert "cover the spread between repeats, 3 in A and 2 in B." in said(three, two)
    assert "between the 3 repeats in A; B, measured once, is taken to vary as much." in said(three, one)
    assert "cover the spread within each run, not between runs" in said(one, one)
    beside = invoke("compare", three, "--reference", "kuo2026", "--ignore", "llm", "--ignore", "dtype")
    assert "cover the spread between the 3 repeats in B." in " ".join(beside.output.split())


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
    rows = [cell("vit-b", 1024, axes=axes, end_to_end_s=0.179, device=device)]
    same = write_run(tmp_path / "same", rows, samples(rows, spread=0.01))
    assert invoke("compare", same, "--reference", "kuo2026", "--fail-slower", "5%").exit_code == 0


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
