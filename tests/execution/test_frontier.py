"""The out-of-memory frontier: the search algorithm, and a real search on this CPU with three budgets."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from tests.helpers.checks import known
from vlmprof.cli import candidates
from vlmprof.cli.frontier import frontier
from vlmprof.errors import UserError
from vlmprof.execution import frontier as searching
from vlmprof.execution.frontier import Frontier, _countable, candidate_lines, counted_peaks, largest_fitting
from vlmprof.execution.progress import Progress
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import Row, Status
from vlmprof.render.figures.frontier import save_frontier
from vlmprof.render.tables.frontier import search_sheet
from vlmprof.render.tables.terminal import print_sheet
from vlmprof.settings import Machine, Settings
from vlmprof.store import load_frame

MIB = 2**20


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_search_finds_the_edge_from_any_guess(count: int) -> None:
    for edge in range(count + 1):
        for guess in range(count):
            asked: list[int] = []

            def fits(i: int, edge: int = edge, asked: list[int] = asked) -> bool:
                asked.append(i)
                return i < edge

            assert largest_fitting(count, fits, guess) == (edge - 1, edge)
            assert len(set(asked)) == len(asked), "nothing is probed twice"
            assert all(0 <= i < count for i in asked)
            distance = abs(guess - edge) + 1
            assert len(asked) <= 2 * math.log2(distance) + 4


def test_what_is_known_to_fit_is_not_asked_again() -> None:
    asked: list[int] = []

    def fits(i: int) -> bool:
        asked.append(i)
        return i < 30

    assert largest_fitting(40, fits, guess=30, known=25) == (29, 30)
    assert asked == [30, 29]
    assert largest_fitting(40, fits, guess=39, known=39) == (39, 40)


def test_a_smaller_budget_teaches_what_cannot_be_counted() -> None:
    assert _countable(1000, [(0.0, 0.0)]) == 1000
    assert _countable(1000, [(0.0, 0.0), (400.0, 500.0)]) == pytest.approx(800)
    assert _countable(1000, [(0.0, 0.0), (400.0, 500.0), (600.0, 750.0)]) == pytest.approx(800)


@pytest.mark.parametrize(
    ("peaks", "guesses"),
    [
        ([math.inf] * 9, [None, None, None]),  # a model that cannot be counted
        ([1.0, 2.0, 3.0, 4.0, 50.0, 6.0, 7.0, 80.0, 90.0], ["1568", "896", "2016"]),  # not in order
    ],
)
def test_a_budget_is_guessed_from_what_is_counted(
    peaks: list[float], guesses: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = candidates.spec(None, {"backbone": ["vit-t"], "llm": "llama-23m"}, "resolution", 2016, step=224)
    budgets = [10, 20, 70]

    def probe(cell: Cell, settings: Settings, *_: object) -> tuple[Row, Samples]:
        needed, budget = 1.0 * cell.height_px / 224, known(settings.memory_limit_bytes) / 4
        status = Status.OK if needed <= budget else Status.OOM
        row = Row(cell.cell_id, cell.axes.named, cell.height_px, cell.width_px, status)
        return row, Samples()

    monkeypatch.setattr(searching, "_peaks", lambda cells, settings: peaks)
    monkeypatch.setattr(searching, "measure_cell", probe)
    monkeypatch.setattr(searching, "describe_machine", lambda *_: Machine("cpu", "none"))
    found = searching.find_frontiers(spec, "resolution", budgets, tmp_path / "run", "", Progress())
    assert [one.fits and one.fits.height_px // 224 for one in found] == [2, 5, 9]
    assert [one.guess and one.guess.axes.resolution for one in found] == guesses


def test_candidates_are_the_sizes_a_backbone_takes() -> None:
    wanted = {"backbone": ["vit-t", "vit-h"], "llm": "llama-23m", "dtype": "float32"}
    spec = candidates.spec(None, wanted, "resolution", largest=448, step=112)
    assert spec.axes.resolution == ("112", "224", "336", "448")
    sides = [[cell.axes.resolution for cell in line] for line in candidate_lines(spec, "resolution")]
    assert sides == [["112", "224", "336", "448"], ["112", "224", "336", "448"]]
    assert (spec.settings.warm_up, spec.settings.iterations) == (1, 1)
    batches = candidates.spec(None, {**wanted, "resolution": [224]}, "batch_size", largest=3, step=32)
    assert batches.axes.batch_size == (1, 2, 3)
    with pytest.raises(UserError, match="no multiple of 100"):
        candidates.spec(None, {**wanted, "backbone": ["vit-t"]}, "resolution", largest=300, step=100)
    with pytest.raises(UserError, match="known: batch_size, frames, resolution"):
        candidates.spec(None, wanted, "llm", largest=None, step=32)


@pytest.mark.slow
def test_chunks_move_the_frontier_of_videos_that_decode() -> None:
    """As counted: prefill at once holds the logits of all positions, in chunks those of 64."""
    wanted = {
        "backbone": ["vit-t"], "llm": "llama-23m", "resolution": [224], "connector": "pool2",
        "dtype": ["float32"], "prefill_chunk": ["none", "64"], "frame_batch": "4",
        "stages": ["vision", "connector", "prefill", "decode"],
    }  # fmt: skip
    spec = candidates.spec(None, wanted, "frames", largest=48, step=32)
    lines = candidate_lines(spec, "frames")
    assert [[cell.axes.frames for cell in line] for line in lines] == [list(range(1, 49))] * 2
    whole, chunked = (counted_peaks(cells, replace(spec.settings, device="cpu")) for cells in lines)
    budget = whole[15]
    fits = [sum(peak <= budget for peak in peaks) for peaks in (whole, chunked)]
    assert fits[0] == 16
    assert fits[1] > 32


def test_interpolated_peaks_are_near_counted_ones() -> None:
    wanted = {"backbone": ["vit-t"], "llm": "llama-23m", "dtype": "float32"}
    spec = candidates.spec(None, wanted, "resolution", largest=2048, step=64)
    (cells,) = candidate_lines(spec, "resolution")
    settings = replace(spec.settings, device="cpu")
    peaks = counted_peaks(cells, settings)
    assert peaks == sorted(peaks)
    assert peaks[17] == pytest.approx(counted_peaks([cells[17]], settings)[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a CPU's memory limit needs Linux")
def test_three_budgets_on_this_cpu(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        *("--backbone", "vit-t", "--llm", "llama-23m", "--dtype", "float32", "--device", "cpu"),
        *("--step", "96", "--largest", "768", "--out", str(out)),
        *("--memory", "192MiB", "--memory", "256MiB"),
    ]
    app = typer.Typer()
    app.command()(frontier)
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    rows = load_frame(out)
    more = CliRunner().invoke(app, [*words, "--memory", "352MiB", "--json"])
    assert more.exit_code == 0, more.output
    found = json.loads(more.stdout)["tables"]["frontier"]
    assert [row["memory_limit_bytes"] for row in found] == [192 * 2**20, 256 * 2**20, 352 * 2**20]
    assert found[-1]["largest_that_fits"] == str(load_frame(out).query("status == 'ok'")["height_px"].max())
    again = load_frame(out)
    assert set(rows["cell_id"]) < set(again["cell_id"]), "the third budget was added to the two"
    assert (
        again.set_index("cell_id").loc[rows["cell_id"], "started_at"].tolist() == rows["started_at"].tolist()
    )

    largest = {}
    for budget, probes in again.groupby("memory_limit_bytes"):
        assert set(probes["status"]) <= {Status.OK, Status.OOM}
        fitting = probes.loc[probes["status"] == Status.OK, "height_px"]
        failing = probes.loc[probes["status"] == Status.OOM, "height_px"]
        assert fitting.empty or failing.empty or fitting.max() < failing.min()
        largest[budget] = 0 if fitting.empty else int(fitting.max())
    sides = list(largest.values())
    assert sides == sorted(sides), "more memory never holds less"
    assert sides[-1] > 0
    assert sides[0] < sides[-1]
    assert (out / "frontier.png").stat().st_size > 5000
    assert "out of memory at" in more.output


def test_the_table_and_the_plot_say_how_each_search_ended(tmp_path: Path) -> None:
    spec = candidates.spec(None, {"backbone": ["vit-t"], "llm": "llama-23m"}, "resolution", 448, step=112)
    (cells,) = candidate_lines(spec, "resolution")
    line = {name: value for name, value in cells[0].axes.named.items() if name != "resolution"}

    def ended(budget_mib: int, fits: int | None, fails: int | None, trouble: str | None = None) -> Frontier:
        return Frontier(
            line=line,
            axis="resolution",
            memory_limit_bytes=budget_mib * MIB,
            fits=None if fits is None else cells[fits],
            fails=None if fails is None else cells[fails],
            oom_stage="prefill" if fails else None,
            guess=cells[1],
            probes=2,
            trouble=trouble,
        )

    found = [
        ended(16, None, 0),
        ended(128, 1, 2),
        ended(512, 3, None),
        ended(256, 1, None, "vit-t @ 336: timeout, longer than 5 s"),
    ]
    out = io.StringIO()
    print_sheet(Console(file=out, width=140), search_sheet(found))
    shown = out.getvalue()
    assert "nothing" in shown
    assert "out of memory at 336² in prefill" in shown
    assert "the largest tried" in shown
    assert "undecided: vit-t @ 336: timeout" in shown
    (path,) = save_frontier(found, tmp_path, ["png"])
    assert path.read_bytes().startswith(b"\x89PNG")
