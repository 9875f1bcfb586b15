"""The figure of an out-of-memory frontier."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from vlmprof.execution.frontier import Frontier
from vlmprof.plan import make_plan
from vlmprof.render.figures import frontier
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
