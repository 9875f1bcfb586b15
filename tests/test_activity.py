"""Activity messages on standard error while commands work, with none on standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.helpers.commands import vlmprof
from tests.helpers.synthetic_runs import samples, sweep, write_run
from tests.helpers.terminal import read_to_end
from vlmprof import activity
from vlmprof.activity import _Narrator


def impatiently(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As a user who would not wait for a second, so that no test depends on how fast a machine is."""
    plain = _Narrator.say

    def shown_at_once(narrator: _Narrator, what: str, patience_s: float | None) -> None:
        plain(narrator, what, patience_s)
        with narrator._lock:
            narrator._show(time.monotonic())

    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("LINES_APART_S", 0), ("TICK_S", 0.01)):
            patch.setattr(activity, name, seconds)
        patch.setattr(_Narrator, "say", shown_at_once)
        ended = vlmprof(folder, *words, patience_s=0)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        rows = sweep(("vit-t", "vmamba-t"), (224, 512, 1024))
        write_run(folder / name, rows, samples(rows))
    return folder


ESTIMATE = ("estimate", "quick", "--backbone", "vit-t", "--gpu", "l4")


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return impatiently(tmp_path_factory.mktemp("estimated"), *ESTIMATE)


@pytest.mark.slow
def test_an_estimate_says_what_it_loads_and_counts(estimated: subprocess.CompletedProcess[str]) -> None:
    for what in ("loading torch", "counting vit-t @ 224"):
        assert what in estimated.stderr
        assert what not in estimated.stdout
    assert estimated.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "kuo2026-fig4"], ["vlmprof plan: running"]),
        (["compare", "one", "two"], ["vlmprof compare: running", "reading the runs"]),
        (["recommend", "one", "--max-memory", "24GiB"], ["vlmprof recommend: running"]),
        (["report", "one"], ["vlmprof report: running", "reading one", "writing the report"]),
        (["plot", "one"], ["vlmprof plot: running", "drawing the figure"]),
        (["export", "one", "--format", "csv"], ["vlmprof export: running"]),
        (["backbones"], ["vlmprof backbones: running"]),
        (["backbones", "show", "vit-t"], ["loading torch"]),
        (["trace", "quick", "--backbone", "vit-t", "--resolution", "64"], ["tracing vit-t @ 64"]),
    ],
    ids=lambda words: words[0],
)
def test_a_command_says_what_it_does_and_only_on_standard_error(
    runs: Path, words: list[str], said: list[str]
) -> None:
    impatient = impatiently(runs, *words)
    for what in said:
        assert what in impatient.stderr
        assert what not in impatient.stdout
    assert impatient.stdout


@pytest.mark.slow
def test_what_is_piped_is_the_same_whether_it_took_long_or_not(
    estimated: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert estimated.stdout == vlmprof(tmp_path, *ESTIMATE).stdout


def test_quick_work_stays_silent() -> None:
    work = "with narrated('working'): say('more'); print('done')"
    assert narrating(work).stderr == ""


def test_a_sign_of_life_comes_within_a_second_also_in_a_pipe() -> None:
    assert activity.PATIENCE_S + activity.TICK_S < 0.8
    work = """
        a.PATIENCE_S, a.TICK_S = 0.02, 0.01
        with narrated('working'):
            while a._narrators[-1]._shown is None:
                time.sleep(0.01)
    """
    assert narrating(work).stderr == "working\n"


@pytest.mark.slow
def test_each_activity_gets_a_line_that_says_how_long_it_takes() -> None:
    work = """
        a.PATIENCE_S = a.LINES_APART_S = 0.2
        a.AGAIN_S = 2.5
        with narrated('starting'):
            time.sleep(1)
            say('counting')
            time.sleep(4)
    """
    assert narrating(work).stderr.splitlines() == ["starting", "counting", "counting, 3 s"]


@pytest.mark.slow
def test_what_is_printed_meanwhile_puts_it_off() -> None:
    work = """
        a.PATIENCE_S = 1.5
        with narrated('working'):
            for row in range(12):
                time.sleep(0.25)
                print(row)
    """
    shown = narrating(work)
    assert shown.stderr == ""
    assert shown.stdout.split() == [str(row) for row in range(12)]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_on_a_terminal_its_line_makes_way_and_is_gone_in_the_end(term: str) -> None:
    ours, theirs = pty.openpty()
    work = """
        a.PATIENCE_S = 0
        with narrated('working hard'):
            time.sleep(0.5)
            print('a row')
            time.sleep(0.5)
    """
    words, env = [sys.executable, "-c", script(work)], os.environ | {"TERM": term}
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = read_to_end(ours)
    assert process.returncode == 0
    line, erased = b"\r\x1b[2Kworking hard", b"\r\x1b[2K"
    if term == "dumb":  # has no such codes
        assert shown.replace(b"\r\n", b"\n") == b"working hard\na row\n"
        return
    assert shown.replace(b"\r\n", b"\n") == line + erased + b"a row\n" + line + erased


def script(work: str) -> str:
    return (
        "import time; import vlmprof.activity as a; from vlmprof.activity import narrated, say\n"
        + textwrap.dedent(work)
    )


def narrating(work: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script(work)], capture_output=True, text=True, check=True)
