"""`vlmprof export`: every format, and LaTeX that compiles."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import vlmprof
from tests.helpers.commands import invoke
from tests.helpers.synthetic_runs import cell, samples, write_run
from vlmprof.cli.encoding import SIMILAR
from vlmprof.errors import UserError
from vlmprof.records import Status
from vlmprof.render.tables.export import latex_escape


def test_export_writes_every_format(run: Path) -> None:
    formats = ("csv", "latex", "markdown", "svg")
    result = invoke("export", run, *(word for name in formats for word in ("--format", name)))
    assert result.exit_code == 0
    written = {path.name for path in (run / "export").iterdir()}
    assert {"rows.csv", "cells.csv", "cells.tex", "fits-latency.md", "six_panel.svg"} <= written
    rows = pd.read_csv(run / "export" / "rows.csv")
    assert rows["end_to_end_s"].tolist()[0] == vlmprof.load(run).frame["end_to_end_s"].iloc[0]
    fits = pd.read_csv(run / "export" / "fits-latency.csv")
    assert {"fixed (s)", "fixed low (s)", "fixed high (s)", "misfit"} <= set(fits.columns)
    conduct = pd.read_csv(run / "export" / "conduct.csv")
    assert conduct["iterations"].tolist() == [10] * (vlmprof.load(run).frame["status"] == "ok").sum()
    with pytest.raises(UserError, match=r"unknown export format .*known: csv, latex, markdown"):
        invoke("export", run, "--format", "xlsx")
    with pytest.raises(UserError, match="unknown table"):
        invoke("export", run, "--format", "csv", "--table", "cellz")


AWKWARD = (
    *("100%_&_#of~mine", 'Odd, "50% & <b>$x_1$</b>|=1+1', "[4]*--`x^2\\\\", "{*}", "''--", "é ß ø Łódź ñ"),
    "".join(map(chr, range(0x20, 0x7F))),
    "".join(map(chr, range(0xA1, 0x250))),
    "αβ 雪 🙂 ½ ² × ± µ · ° … − – — ∞ “”",
)


def test_latex_has_the_characters_of_our_own_tables() -> None:
    ours = [c for c in SIMILAR if c not in "∙●▶█─━│"]  # of progress displays
    assert not [c for c in ours if "?" in latex_escape(c)]
    assert [latex_escape(word) for word in ("½", "ﬁt", "\a", "Å ł")] == ["?", "fit", "?", "Å ł"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_exported_tables_compile_with_the_packages_that_they_name(tmp_path: Path) -> None:
    rows = [cell(name, side) for name in AWKWARD for side in (224, 448)]
    rows = [replace(row, cell_id=f"cell-{i}") for i, row in enumerate(rows)]
    run = write_run(tmp_path / "run", rows, samples(rows))
    assert invoke("export", run, "--format", "latex").exit_code == 0
    tables = [table.read_text() for table in sorted((run / "export").glob("*.tex"))]
    assert len(tables) >= 3
    packages = {
        line[2:] for table in tables for line in table.splitlines() if line.startswith("% \\usepackage")
    }
    # each character by itself first in a row too, where LaTeX looks for a star or a bracket
    lines = [f"{latex_escape(c)} & {latex_escape(c)} \\\\" for name in AWKWARD for c in name if c.strip()]
    alone = ["\\begin{tabular}{ll}", *lines[:60], "\\end{tabular}"]
    document = [
        "\\documentclass{article}",
        *sorted(packages),
        "\\begin{document}",
        *tables,
        *alone,
        "\\end{document}",
    ]
    (tmp_path / "all.tex").write_text("\n".join(document), encoding="utf-8")
    words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert made.returncode == 0, made.stdout[-2000:]


def test_parquet_keeps_every_number(run: Path) -> None:
    pytest.importorskip("pyarrow")
    assert invoke("export", run, "--format", "parquet").exit_code == 0
    again = pd.read_parquet(run / "export" / "rows.parquet")
    frame = vlmprof.load(run).frame
    assert again["gpu_vision_s"].tolist()[:5] == frame["gpu_vision_s"].tolist()[:5]
    assert len(again) == len(frame)


@pytest.mark.slow
def test_export_without_a_format_writes_what_most_programs_read(run: Path, tmp_path: Path) -> None:
    assert invoke("export", run).exit_code == 0
    suffixes = {path.suffix for path in (run / "export").iterdir()}
    assert suffixes == {".csv", ".tex", ".md", ".png", ".pdf"}
    failed = write_run(tmp_path / "failed", [cell("vit-t", 224, status=Status.ERROR)])
    result = invoke("export", failed)
    assert "no figure: none of its 1 cells was measured" in result.output
    assert {path.suffix for path in (failed / "export").iterdir()} == {".csv", ".tex", ".md"}


def test_whole_numbers_are_whole_in_csv(run: Path) -> None:
    """Cells that ran out of memory lack most of them, so a DataFrame holds them as floats."""
    assert invoke("export", run, "--format", "csv").exit_code == 0
    with (run / "export" / "rows.csv").open() as file:
        (first, *_, last) = csv.DictReader(file)
    assert (first["visual_tokens"], first["iterations"], first["batch_size"]) == ("196", "10", "1")
    assert first["peak_allocated_bytes"] == "576070912"
    assert last["visual_tokens"] == ""
    with (run / "export" / "cells.csv").open() as file:
        shown = next(csv.DictReader(file))
    assert shown["visual tokens"] == "196"
    assert shown["peak allocated (bytes)"] == "576070912"


def test_a_users_family_and_size_reach_tables_and_figures(tmp_path: Path) -> None:
    rows = [cell("mine:small", side) for side in (224, 448)]
    run = write_run(tmp_path / "run", rows, samples(rows))
    manifest = json.loads((run / "run.json").read_text())
    manifest["backbones"] = {"mine:small": {"family": "Mine", "size": "S"}}
    (run / "run.json").write_text(json.dumps(manifest))
    assert invoke("export", run, "--format", "csv", "--format", "svg").exit_code == 0
    assert "Mine-S,224²" in (run / "export" / "cells.csv").read_text()
    assert "mine:small,224" in (run / "export" / "rows.csv").read_text()
    assert "<!-- Mine" in (run / "export" / "six_panel.svg").read_text()
