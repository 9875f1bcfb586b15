"""The figure of the Pareto front."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.helpers.drawn import xs, ys
from tests.helpers.synthetic_runs import cell, frame, sweep
from vlmprof.analysis.advice import Limits, advise, load_scores
from vlmprof.analysis.reference import load_reference
from vlmprof.errors import UserError
from vlmprof.render.figures.pareto import pareto_figure


def test_the_front_is_joined_and_the_limits_are_drawn() -> None:
    limits = Limits(memory_bytes=2**30, ttft_s=20e-3)
    advice = advise(frame(sweep()), limits)
    figure = pareto_figure(advice, limits)
    latency, memory = figure.axes
    assert latency.get_xlabel() == "TTFT (ms)"
    assert memory.get_xlabel() == "memory (GiB)"
    (front,) = [line for line in latency.get_lines() if line.get_gid() == "front"]
    x, y = xs(front), ys(front)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert max(x) <= 20
    (line,) = [line for line in latency.get_lines() if line.get_gid() == "limit"]
    assert xs(line).tolist() == pytest.approx([20, 20])
    shown = [line for line in latency.get_lines() if line.get_gid() == "cells"]
    assert sum(len(xs(line)) for line in shown) == 18


@pytest.mark.parametrize("width", ["one-column", "two-column"])
def test_names_of_the_front_do_not_overlap(width: str) -> None:
    advice = advise(load_reference("kuo2026"), Limits(ttft_s=0.5))
    for axes in pareto_figure(advice, Limits(ttft_s=0.5), width).axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_visible()]
        assert boxes
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_scores_have_a_panel_for_each_cost() -> None:
    rows = [cell("vmamba-s", side, energy_per_image_j=float(side)) for side in (224, 512)]
    advice = advise(frame(rows), Limits(), scores=load_scores("kuo2026"), price_per_hour=2.0)
    figure = pareto_figure(advice, Limits())
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "TTFT (ms)", "memory (MiB)", "energy per image (J)", "cost per 1,000 images",
    ]  # fmt: skip
    assert {axes.get_ylabel() for axes in figure.axes} == {"weighted overall"}
    with pytest.raises(UserError, match="figure width"):
        pareto_figure(advice, Limits(), "wide")
