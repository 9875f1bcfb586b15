"""`vlmprof runs`, and the names of runs in place of their folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import invoke, vlmprof
from tests.helpers.synthetic_runs import cell, samples, sweep, write_run
from vlmprof.errors import RunWarning, UserError
from vlmprof.files import replace_file


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs in `runs/`, the second with a cell that ran out of memory, and a folder that is no run."""
    for name, date, oom_from in (("after", "2026-03-02", {"vit-s": 384}), ("before", "2026-03-01", {})):
        rows = sweep(("vit-t", "vit-s"), (224, 384, 512), oom_from)
        run = write_run(tmp_path / "runs" / name, rows, samples(rows))
        manifest = json.loads((run / "run.json").read_text())
        manifest["spec"]["name"] = "mine"
        manifest["environment"] |= {"device_name": "NVIDIA H200", "started_at": f"{date}T10:20:30+00:00"}
        (run / "run.json").write_text(json.dumps(manifest))
    (tmp_path / "runs" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_it_lists_specification_machine_date_and_cells_by_status(runs: Path, tmp_path: Path) -> None:
    result = invoke("runs", "--save-tables", tmp_path / "tables")
    assert result.exit_code == 0
    table = pd.read_csv(tmp_path / "tables" / "runs.csv")
    assert table["run"].tolist() == ["before", "after"]
    assert table["date (UTC)"].tolist() == ["2026-03-01 10:20", "2026-03-02 10:20"]
    assert table["cells"].tolist() == ["6 ok", "4 ok, 1 oom, 1 skipped"]
    assert set(table["specification"]) == {"mine"}
    assert set(table["machine"]) == {"NVIDIA H200"}
    assert "4 ok, 1 oom, 1 skipped" in result.output


def test_a_run_that_cannot_be_read_is_listed_with_the_reason(runs: Path) -> None:
    (runs / "after" / "run.json").write_text("{")
    with (runs / "before" / "rows.jsonl").open("a") as rows:
        rows.write("{")
    with pytest.warns(RunWarning, match="before: 1 of 7 lines could not be read"):
        result = invoke("runs")
    assert "cannot be read" in result.output
    assert "6 ok" in result.output


def test_an_empty_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("runs").output == "no runs in runs\n"


@pytest.mark.slow
def test_names_stand_for_folders(runs: Path, tmp_path: Path) -> None:
    compared = invoke("compare", "before", "after")
    assert "ViT-S at 384² ran in A but not in B" in compared.output
    for words in (
        ["plot", "before", "--format", "svg"],
        ["report", "before", "after", "--format", "markdown"],
        ["recommend", "before", "--format", "svg"],
        ["export", "before", "--format", "csv", "--table", "cells"],
    ):
        assert invoke(*words).exit_code == 0, words
    for made in ("six_panel.svg", "report.md", "recommend.svg", "export/rows.csv"):
        assert (runs / "before" / made).is_file()


def test_a_folder_comes_before_a_name(runs: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "before", sweep(("vit-t",), (224,)))
    invoke("export", "before", "--format", "csv")
    assert len(pd.read_csv(tmp_path / "before" / "export" / "rows.csv")) == 1


def test_an_unknown_name_suggests_a_known_one(runs: Path) -> None:
    with pytest.raises(UserError, match=r"'befor'; did you mean before\?"):
        invoke("plot", "befor")
    with pytest.raises(UserError, match=r"notes is not a run folder: it has no run\.json"):
        invoke("plot", "runs/notes")
    with pytest.raises(UserError, match="runs/none is not a run folder: there is no such folder"):
        invoke("report", "runs/none")


def test_runs_are_listed_in_a_terminal_of_unknown_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "one", [cell()])
    monkeypatch.setenv("COLUMNS", "0")
    assert "one" in vlmprof(tmp_path, "runs").stdout
    assert "COLUMNS" not in os.environ


def test_a_name_that_is_not_utf_8_is_written_with_a_question_mark(tmp_path: Path) -> None:
    replace_file(tmp_path / "report.md", os.fsdecode(b"l\xe4rm"))
    assert (tmp_path / "report.md").read_text() == "l?rm"
