"""The figure of an out-of-memory frontier."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from vlmprof.analysis.frames import LineName
from vlmprof.execution.frontier import Frontier
from vlmprof.plan import line_key, make_plan
from vlmprof.render.figures import frontier
from vlmprof.render.labels import line_label
from vlmprof.render.tables.frontier import search_sheet
from vlmprof.spec import build_spec


def test_no_handle_lies_beside_the_only_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(frontier, "save_figure", lambda figure, *rest, **options: figures.append(figure))
    (cell,) = make_plan(
        build_spec({}, {"backbone": ["vit-t"], "resolution": ["512"], "llm": "llama-23m"}, "one")
    )
    line = {"backbone": "vit-t"}
    found = Frontier(line, "resolution", 2**30, fits=cell, fails=None, oom_stage=None, guess=None, probes=1)
    frontier.save_frontier([found], tmp_path, ["png"])
    (figure,) = figures
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    (arrow,) = [text for text in axes.texts if isinstance(text, Annotation)]
    assert axes.get_ylim()[0] < 512 < arrow.xy[1] < axes.get_ylim()[1]
    assert [text.get_text() for text in legend.get_texts()] == ["ViT-T", "the largest tried fits"]


def test_a_resolution_beside_the_searched_axis_is_shown_as_one() -> None:
    spec = build_spec({}, {"backbone": ["vit-t"], "resolution": ["224", "512"], "llm": "llama-23m"}, "two")
    found = [
        Frontier(
            dict(line_key(cell.axes.named, "batch_size")), "batch_size", 2**30, cell, None, None, None, 1
        )
        for cell in make_plan(spec)
    ]
    column = next(column for column in search_sheet(found).columns if column.title == "resolution")
    assert (column.values, column.raw) == (["224²", "512²"], ["224", "512"])
    assert line_label(LineName("vit-t", {"resolution": "512"})) == "ViT-T · 512²"
