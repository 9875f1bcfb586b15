"""plot, recommend and report as a user types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.helpers.commands import invoke
from tests.helpers.synthetic_runs import cell, write_run
from vlmprof.analysis.runs import load
from vlmprof.errors import UserError
from vlmprof.records import Status
from vlmprof.render.report.content import gather


def test_plot_draws_a_run_into_its_own_folder(run: Path) -> None:
    result = invoke("plot", run, "--format", "svg", "--reference", "kuo2026")
    assert result.output.split() == [str(run / "six_panel.svg")]
    assert "measured" in (run / "six_panel.svg").read_text()


@pytest.mark.slow
def test_an_adaptive_run_is_drawn_by_its_medians(run: Path, tmp_path: Path) -> None:
    def notes(*options: str) -> str:
        invoke("plot", run, "--format", "svg", *options)
        return (run / "six_panel.svg").read_text()

    assert "95 % interval of the mean" in notes()
    assert "Points: medians" in notes("--statistic", "median")
    manifest = json.loads((run / "run.json").read_text())
    manifest["spec"] = {"fixed": {"sampling": "adaptive"}}
    (run / "run.json").write_text(json.dumps(manifest))
    assert "Points: medians" in notes()
    invoke("report", run, "--out", tmp_path / "out")
    assert "Points: medians" in (tmp_path / "out" / "report.md").read_text()
    assert "95 % interval of the mean" in notes("--statistic", "mean")
    with pytest.raises(UserError, match="unknown statistic 'mode'"):
        notes("--statistic", "mode")


@pytest.mark.slow
def test_plot_draws_the_published_figure_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("plot", "--reference", "kuo2026", "--format", "svg").output.split() == ["kuo2026.svg"]
    published = (tmp_path / "kuo2026.svg").read_text()
    assert published.count('id="measured"') == 6 * 10
    assert published.count('id="oom"') == 6 * 3
    result = invoke("plot", "--reference", "kuo2026", "--format", "png", "--out", tmp_path / "new", "--log")
    assert result.output.split() == [str(tmp_path / "new" / "kuo2026.png")]


def test_plot_refuses_what_it_cannot_draw(run: Path, tmp_path: Path) -> None:
    for words, says in (
        ([], "pass a run folder, or --reference kuo2026"),
        (["--reference", "kuo2025"], "kuo2026"),
        (["--reference", "kuo2026", "--format", "gif"], "unknown figure format"),
        ([tmp_path / "none", "--reference", "kuo2026"], "not a run folder"),
    ):
        with pytest.raises(UserError, match=says):
            invoke("plot", *words)


def test_a_run_without_a_measured_cell_has_no_figure(tmp_path: Path) -> None:
    rows = [cell("vit-t", side, status=Status.ERROR) for side in (224, 448)]
    rows.append(cell("vmamba-t", 224, status=Status.OOM))
    run = write_run(tmp_path / "run", rows)
    said = "none of its 3 cells was measured (1 oom, 2 error)"
    with pytest.raises(UserError, match=re.escape(said)):
        invoke("plot", run)
    assert invoke("report", run).exit_code == 0
    for page in ("report.html", "report.md"):
        assert said in (run / page).read_text()
    assert not list(run.glob("*six_panel*"))


def test_recommend_prints_and_draws_the_front(run: Path) -> None:
    result = invoke("recommend", run, "--max-memory", "2GiB", "--max-ttft", "20ms", "--format", "svg")
    assert result.exit_code == 0
    assert "ViT-T" in result.output
    assert "768²" in result.output
    assert (run / "recommend.svg").read_text().startswith("<?xml")


def test_recommend_by_scores(tmp_path: Path) -> None:
    rows = [cell("vmamba-s", 224), cell("vmamba-s", 512), cell("vit-s", 224)]
    result = invoke(
        "recommend", write_run(tmp_path / "run", rows), "--scores", "kuo2026", "--price-per-hour", 2
    )
    assert result.exit_code == 0
    assert "60.8" in result.output
    assert "cost per 1,000 images" in result.output
    assert "rank correlation over the 3 scored cells" in result.output


def test_recommend_says_what_would_do(run: Path) -> None:
    result = invoke("recommend", run, "--max-ttft", "1us")
    assert result.exit_code == 1
    assert "no measured cell is within the limits; the lowest memory of any cell is" in result.output


@pytest.mark.slow
def test_report_writes_both_pages(run: Path, tmp_path: Path) -> None:
    result = invoke("report", run, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md",
        *(f"report_{word}.png" for word in ("six_panel", "stages", "launch", "fits", "frontier")),
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown report format"):
        invoke("report", run, "--format", "pdf")


@pytest.mark.slow
def test_recommend_chooses_among_estimates(tmp_path: Path) -> None:
    spec = tmp_path / "choice.toml"
    spec.write_text(
        '[axes]\nbackbone = "vit-t"\nresolution = [224, 448]\nconnector = ["mlp2", "pixel-shuffle2"]\n'
        'llm = "llama-23m"\n[fixed]\nstages = ["vision", "connector", "prefill"]\n'
    )
    result = invoke("recommend", spec, "--gpu", "l4", "--out", tmp_path, "--format", "svg")
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert "pixel-shuffle2 → mlp2" in shown
    assert "pixel-shuffle2 instead of mlp2" in shown
    assert "(estimated, medians of 2 pairs; in brackets: ranges, fewer than 6 pairs)" in shown
    assert "Estimated for NVIDIA L4" in (tmp_path / "recommend-l4.svg").read_text()
    late = invoke("recommend", spec, "--gpu", "l4", "--max-ttft", "1us", "--out", tmp_path)
    assert late.exit_code == 1
    assert "no estimated cell is within the limits" in late.output


def test_recommend_checks_prices_and_energies(run: Path) -> None:
    for options, words in (
        (("--max-cost", 1), "--max-cost needs --price-per-hour"),
        (("--max-cost", 0, "--price-per-hour", 1), "--max-cost 0 is not a price"),
        (("--max-energy", "5W"), "'5W' is not an energy; write it like 20J or 500mJ"),
        (("--max-energy", "5J"), "no energy per image to limit"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            invoke("recommend", run, *options)


def test_a_report_prices_the_levers(tmp_path: Path) -> None:
    rows = [
        cell("vit-t", side, scale=scale, axes={"connector": name})
        for side in (224, 256, 384, 512, 768, 1024)
        for name, scale in (("mlp2", 1.0), ("pool2", 0.5))
    ]
    content = gather([load(write_run(tmp_path / "run", rows))])
    (section,) = [section for section in content.sections if section.anchor == "levers"]
    assert [len(sheet) for sheet in section.sheets] == [6]  # the steps between sizes, and the connector
    (finding,) = [finding for finding in content.findings if finding.anchor == "levers"]
    assert re.fullmatch(
        r"pool2 instead of mlp2 saves [\d.]+ \([\d.]+ to [\d.]+\) ms in vision and [\d.]+ \(.*\) ms in "
        r"prefill; TTFT is .* shorter \(−50 %\) \(medians of 6 pairs; in brackets: 95 % intervals\)\.",
        finding.text,
    )
    plain = gather([load(write_run(tmp_path / "plain", rows[::2]))])
    assert "levers" not in {section.anchor for section in plain.sections}
