"""The output of `vlmprof plan`: every cell in a pipe, a summary of long plans on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.helpers.commands import vlmprof
from tests.helpers.terminal import read_to_end
from vlmprof import environment
from vlmprof.plan import Cell, make_plan
from vlmprof.render.tables.plans import LONG, plan_sheet
from vlmprof.render.tables.terminal import print_sheet
from vlmprof.spec import build_spec

MANY = """
name = "many"
[axes]
backbone = ["vit-t", "vmamba-t"]
resolution = [224, 230, 512, 1024, "1333x800"]
llm = "llama-23m"
connector = ["linear", "mlp2", "mlp3"]
dtype = ["float32", "bfloat16", "float16"]
batch_size = [1, 2, 4]
"""
CELLS = 2 * 5 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("gib", "visible", "name", "said"),
    [
        ((), None, "quick", None),
        ((80,), None, "kuo2026-fig4", None),
        ((15,), None, "kuo2026-fig4", None),
        ((8,), None, "quick-gpu", "8 GiB"),
        ((12, 6), None, "quick-gpu", "12 GiB"),
        ((80,), "", "quick", None),
    ],
)
def test_without_a_specification_the_machine_decides(
    gib: tuple[int, ...], visible: str | None, name: str, said: str | None,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    gpus = [{"name": "a GPU", "memory_bytes": size << 30, "driver": "1"} for size in gib]
    monkeypatch.setattr(environment, "nvidia_gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    plain, named = vlmprof(tmp_path, "plan"), vlmprof(tmp_path, "plan", name)
    reason = f"the default here is quick-gpu, because Vicuna-7B of kuo2026-fig4 does not fit into {said}\n"
    assert plain.stdout == (reason if said else "") + named.stdout
    assert (plain.returncode, plain.stderr) == (0, "")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    (tmp_path / "many.toml").write_text(MANY)
    return tmp_path


def in_a_pipe(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "vlmprof", "plan", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def on_a_terminal(folder: Path, *words: str, columns: int = 80) -> str:
    """What appears on a terminal so wide, without colours."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-m", "vlmprof", "plan", *words]
    with subprocess.Popen(command, cwd=folder, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_to_end(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def rows(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith(("vit-t ", "vmamba-t "))]


def test_a_pipe_gets_every_cell(many: Path) -> None:
    assert CELLS > LONG
    shown = in_a_pipe(many, "many.toml")
    cells = make_plan(build_spec(*document(MANY)))
    assert [line.split()[:2] for line in rows(shown)] == [
        [cell.axes.backbone, cell.axes.resolution] for cell in cells
    ]
    assert in_a_pipe(many, "many.toml", "--all") == shown


def test_a_terminal_gets_a_summary_of_many(many: Path) -> None:
    shown = on_a_terminal(many, "many.toml")
    assert max(map(len, shown.splitlines())) <= 80
    # each backbone with cells to run, resolutions, visual tokens, cells skipped: 230 does not divide by 16,
    # and neither does 1333
    assert [line.split() for line in rows(shown)] == [
        ["vit-t", "81", "224", "to", "1024", "196", "to", "4,096", "54"],
        ["vmamba-t", "135", "224", "to", "1333x800", "196", "to", "4,200"],
    ]
    words = " ".join(shown.split())
    assert "batch size 3 1, 2, 4" in words
    assert (
        "54 vit-t does not accept 230; the nearest accepted size is 224 or 240; "
        "or use fit pad; also skipped: 1333x800" in words
    )
    assert "216 cells to run, 54 skipped" in shown
    assert "--all" in shown


@pytest.mark.parametrize("option", ["--all", "--ids"])
def test_every_cell_can_be_asked_for_on_a_terminal(many: Path, option: str) -> None:
    shown = on_a_terminal(many, "many.toml", option, columns=200)
    assert len([line for line in shown.splitlines() if re.match(r"v(it|mamba)-t", line)]) == CELLS


def test_few_cells_are_printed_one_by_one(many: Path) -> None:
    shown = on_a_terminal(many, "many.toml", "--batch-size", "1", "--dtype", "float32", "--resolution", "224")
    assert len(rows(shown)) == 6


@pytest.mark.parametrize(("width", "ids"), [(100, False), (130, True), (200, False), (200, True)])
def test_rows_are_those_of_a_rich_table(width: int, ids: bool) -> None:
    cells = make_plan(build_spec(*document(MANY)))
    written, expected = io.StringIO(), io.StringIO()
    print_sheet(Console(file=written, width=width), plan_sheet(cells, ids))
    Console(file=expected, width=width).print(rich_table(cells, ids))
    assert written.getvalue() == expected.getvalue()


@pytest.mark.parametrize("ids", [False, True])
def test_on_a_narrow_terminal_nothing_of_a_cell_is_cut(ids: bool) -> None:
    cells = make_plan(build_spec(*document(MANY)))
    written = io.StringIO()
    print_sheet(Console(file=written, width=60), plan_sheet(cells, ids))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert "…" not in written.getvalue()
    assert "vmamba-t · 1333x800 · mlp3 · float16 · batch 4" in lines
    assert sum(line.startswith(("vit-t", "vmamba-t")) for line in lines) == CELLS
    if ids:
        assert all(cell.cell_id in written.getvalue() for cell in cells)


def rich_table(cells: Sequence[Cell], ids: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in (*(["cell"] if ids else []), "backbone", "resolution", "connector", "dtype", "batch size"):
        table.add_column(title)
    table.add_column("visual tokens", justify="right")
    table.add_column("skipped because", overflow="fold")
    for cell in cells:
        tokens = f"{cell.visual_tokens:,}" if cell.visual_tokens else ""
        axes = (
            cell.axes.named[name] for name in ("backbone", "resolution", "connector", "dtype", "batch_size")
        )
        table.add_row(*([cell.cell_id] if ids else []), *map(str, axes), tokens, cell.skip_reason or "")
    return table


def document(text: str) -> tuple[dict[str, object], dict[str, object], str]:
    import tomllib

    return tomllib.loads(text), {}, "many"


def test_the_head_line_leaves_out_axes_that_add_nothing(tmp_path: Path) -> None:
    plain = vlmprof(tmp_path, "plan", "quick").stdout
    assert "dtype" in plain
    assert not any(word in plain for word in ("tiling", "frames", "prefill_chunk", "llm_precision"))
    assert "frames 4" in vlmprof(tmp_path, "plan", "quick", "--frames", "4").stdout
