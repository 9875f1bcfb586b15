"""Output in encodings that lack some of our characters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

from tests.helpers.commands import vlmprof
from tests.helpers.synthetic_runs import samples, sweep, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rows = sweep(("vit-t", "vmamba-t"), (224, 512))
    for name in ("one", "two"):
        write_run(folder / name, rows, samples(rows))
    return folder


def printed(folder: Path, encoding: str, *words: str) -> str:
    ended = vlmprof(folder, *words, encoding=encoding)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


COMMANDS = [
    ("compare", "one", "two"),
    ("plan", "quick"),
    ("plot", "one", "--format", "png"),
    ("recommend", "one", "--format", "png"),
    ("backbones",),
]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Callable[..., str]:
    """What a command prints where every character can be encoded."""
    return cache(partial(printed, folder, "utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_line_is_printed_in_any_encoding(
    folder: Path, whole: Callable[..., str], encoding: str, words: tuple[str, ...]
) -> None:
    plain = printed(folder, encoding, *words)
    assert len(plain.splitlines()) == len(whole(*words).splitlines())
    assert "?" not in plain.replace("?", "", whole(*words).count("?"))


def test_similar_characters_stand_in(folder: Path) -> None:
    assert "224²" in printed(folder, "latin-1", "compare", "one", "two")
    shown = printed(folder, "ascii", "compare", "one", "two")
    assert "224^2" in shown
    assert "1.00x" in shown


def test_what_has_no_similar_character_is_a_question_mark(folder: Path) -> None:
    code = "from vlmprof.cli.encoding import print_any_text as p; p(); print('Zoë, 雪, ½ × 2', '\\udc80')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ended.stdout == b"Zoe, ?, ? x 2 ?\n"
