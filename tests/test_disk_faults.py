"""Full and read-only disks, and folders that go away: what was there stays, and nothing measured is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import heap
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.helpers.commands import vlmprof
from tests.helpers.synthetic_runs import cell, samples, write_run
from vlmprof.cli import main
from vlmprof.errors import UnwrittenError, UserError
from vlmprof.execution.processes import status_board
from vlmprof.execution.starting import _choose_socket_folder
from vlmprof.files import replacing
from vlmprof.measure.samples import Samples
from vlmprof.store import RunFolder, read_rows

MANIFEST: dict[str, Any] = {"spec": {"axes": {}, "fixed": {}}, "command": "", "environment": {}}
FIRST, SECOND = cell("vit-t", 224), cell("vit-t", 512)


@contextmanager
def full_disk(most_bytes: int = 1000) -> Iterator[None]:
    """Let no file of this process grow beyond `most_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("plot", "run", "--format", "svg", "--format", "pdf"),
        ("report", "run"),
        ("export", "run", "--format", "csv", "--format", "latex"),
        ("recommend", "run", "--format", "png", "--save-tables", "tables"),
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = [FIRST, SECOND]
    write_run(tmp_path / "run", rows, samples(rows))

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert vlmprof(tmp_path, *words).returncode == 0
    before = content()
    with full_disk():
        ended = vlmprof(tmp_path, *words)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("vlmprof: cannot write")
    assert line.endswith("File too large")
    assert content() == before


def deleted(run: Path) -> Path | None:
    shutil.rmtree(run)
    return None


def moved(run: Path) -> Path | None:
    return run.rename(run.with_name("elsewhere"))


def replaced(run: Path) -> Path | None:
    elsewhere = run.rename(run.with_name("elsewhere"))
    shutil.copytree(elsewhere, run)
    return elsewhere


def without_samples(run: Path) -> Path | None:
    shutil.rmtree(run / "samples")
    return run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (deleted, "was deleted, with the earlier rows"),
        (moved, "was moved to {folder}/elsewhere, with the earlier rows"),
        (replaced, "was moved to {folder}/elsewhere, with the earlier rows"),
        (without_samples, "No such file or directory"),
    ],
)
def test_a_folder_that_went_away_is_noticed_at_the_next_row(
    tmp_path: Path, change: Callable[[Path], Path | None], said: str
) -> None:
    with RunFolder(tmp_path / "run", MANIFEST) as folder:
        folder.append(FIRST, Samples())
        kept = change(tmp_path / "run")
        with pytest.raises(UnwrittenError, match="was not written") as problem:
            folder.append(SECOND, Samples({"end_to_end_s": [0.1]}))
    assert said.format(folder=tmp_path) in str(problem.value)
    (row,) = problem.value.rows
    assert json.loads(row) == SECOND.to_flat()
    if kept is not None:
        assert read_rows(kept) == [FIRST]
        # as the line says that was printed
        with (kept / "rows.jsonl").open("a") as rows:
            rows.write(f"{row}\n")
        assert read_rows(kept) == [FIRST, SECOND]


MOVING = """
from pathlib import Path
import torch
from vlmprof.backbones import backbone

@backbone(embed_dim=8, stride=32, family="Mine", size="S")
def small():
    if Path("armed").exists():
        Path("runs/mine").rename("runs/elsewhere")
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 32, 32), torch.nn.Flatten(2), Turned())

class Turned(torch.nn.Module):
    def forward(self, features):
        return features.transpose(1, 2)
"""


@pytest.mark.slow
def test_a_sweep_whose_folder_is_renamed_prints_the_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MOVING)
    (tmp_path / "armed").touch()
    words = ("sweep", "quick", "--backbone", "mine:small", "--resolution", "64", "--iterations", "1")
    ended = vlmprof(tmp_path, *words, "--device", "cpu", "--out", "runs/mine")
    assert ended.returncode == 2
    *_, row, line = ended.stderr.splitlines()
    assert (json.loads(row)["backbone"], json.loads(row)["status"]) == ("mine:small", "ok")
    assert "runs/mine was moved to" in line
    assert not (tmp_path / "runs" / "mine").exists()
    manifest = json.loads((tmp_path / "runs" / "elsewhere" / "run.json").read_text())
    assert manifest["backbones"] == {"mine:small": {"family": "Mine", "size": "S"}}


def printed_to(stream: TextIO, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a command with this standard output; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["vlmprof", *words])
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("words", [("plan", "quick"), ("plan", "quick", "--json"), ("--help",)])
def test_a_full_disk_under_standard_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:
        assert printed_to(full, words, monkeypatch) == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == "vlmprof: cannot write standard output: No space left on device"
    assert len(said) == 1 or "--json" in words


def test_a_reader_that_goes_away_ends_a_command_in_silence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        assert printed_to(pipe, ("plan", "quick"), monkeypatch) == 141
    assert capfd.readouterr().err == ""


def test_a_status_board_needs_no_dev_shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be written stands for a read-only /dev/shm."""
    monkeypatch.setattr(heap.Arena, "_dir_candidates", [str(tmp_path / "nowhere")])
    monkeypatch.setattr(heap.BufferWrapper, "_heap", heap.Heap())
    board = status_board()
    board.count(6)
    assert board.read().iteration == 7


def test_no_temporary_folder_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UserError, match="no temporary folder can be written; set TMPDIR"):
        _choose_socket_folder()


def test_a_link_stays_a_link_and_readers_see_old_or_new(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    seen = []
    with replacing(tmp_path / "link") as draft:
        draft.write_text("new")
        reader = threading.Thread(target=lambda: seen.append((tmp_path / "link").read_text()))
        reader.start()
        reader.join()
    assert seen == ["old"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
