"""The figure of the Pareto front."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.helpers.drawn import xs, ys
from tests.helpers.synthetic_runs import cell, frame, sweep
from vlmprof.analysis.advice import Advice, Limits, advise
from vlmprof.analysis.reference import load_reference
from vlmprof.analysis.scores import load_scores
from vlmprof.errors import UserError
from vlmprof.render.figures.pareto import pareto_figure
from vlmprof.render.tables.decisions import advice_sheet

MIB = 2**20


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


def test_much_slower_for_hardly_less_memory_is_not_recommended() -> None:
    rows = [
        cell("vit-t", 224, end_to_end_s=0.01, peak_allocated_bytes=1000 * MIB, peak_reserved_bytes=None),
        cell("vmamba-t", 224, end_to_end_s=0.2, peak_allocated_bytes=993 * MIB, peak_reserved_bytes=None),
        cell("vit-s", 224, end_to_end_s=0.3, peak_allocated_bytes=900 * MIB, peak_reserved_bytes=None),
        cell("vit-b", 225, end_to_end_s=0.1, peak_allocated_bytes=1000 * MIB, peak_reserved_bytes=None),
    ]
    advice = advise(frame(rows), Limits())
    assert set(advice.chosen["backbone"]) == {"vit-t", "vit-s"}
    assert set(advise(frame(rows), Limits(), tolerance=0.0).chosen["backbone"]) == {
        "vit-t", "vmamba-t", "vit-s", "vit-b",
    }  # fmt: skip
    for axes, column, unit in zip(
        pareto_figure(advice, Limits()).axes, ("ttft_s", "memory_bytes"), (1e-3, MIB), strict=True
    ):
        (front,) = [line for line in axes.get_lines() if line.get_gid() == "front"]
        assert sorted(xs(front) * unit) == pytest.approx(sorted(advice.chosen[column]))


def test_a_limit_is_drawn_or_said_to_be_outside() -> None:
    for memory_bytes, drawn in ((2**30, True), (24 * 2**30, False)):
        limits = Limits(memory_bytes=memory_bytes)
        figure = pareto_figure(advise(frame(sweep()), limits), limits)
        lines = [line for axes in figure.axes for line in axes.get_lines() if line.get_gid() == "limit"]
        note = figure.legends[0].get_title().get_text()
        assert (len(lines) == 1) is ("Dashed: limit." in note) is drawn
        assert ("The limit of 24.0 GiB on memory is right of the panel." in note) is not drawn


def test_pale_cells_are_over_a_limit_or_not_known_to_be_within_it() -> None:
    rows = [cell(name, energy_per_image_j=joules) for name, joules in (("vit-t", 0.0), ("vit-s", 9.0))]
    limits = Limits(energy_per_image_j=5.0)

    def note() -> str:
        figure = pareto_figure(advise(frame(rows), limits), limits)  # free energy has no place on its axis
        return figure.legends[0].get_title().get_text()

    assert "Pale: over a limit." in note()
    rows.append(cell("vit-b"))
    assert "Pale: over a limit, or not known to be within it." in note()


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


def numbered(connectors: int, sides: int) -> Advice:
    """Cells whose front has a point per connector and size."""
    rows = [
        cell(
            "vit-t", 224 * side, axes={"connector": f"c{n}"}, visual_tokens=64 * side**2 * (n + 1),
            end_to_end_s=0.01 * side**2 * (n + 1), peak_reserved_bytes=None,
        )
        for side in range(1, sides + 1)
        for n in range(connectors)
    ]  # fmt: skip
    return advise(frame(rows), Limits(), estimated_for="NVIDIA H200")


@pytest.mark.parametrize(("connectors", "sides"), [(3, 1), (4, 3), (12, 5)])
def test_steps_are_labelled_with_their_levers(connectors: int, sides: int) -> None:
    advice = numbered(connectors, sides)
    assert len(advice.chosen) == connectors * sides
    figure = pareto_figure(advice, Limits())
    for axes in figure.axes:
        shown = [text for text in axes.texts if text.get_visible()]
        boxes = [text.get_window_extent() for text in shown]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        front = [line for line in axes.get_lines() if line.get_gid() == "front"]
        assert len(front) == sides
    levers = [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "lever"]
    assert set(levers) == {f"c{n - 1} → c{n}" for n in range(1, connectors)}
    assert "Estimated for NVIDIA H200 from counted costs" in figure.legends[0].get_title().get_text()


def test_many_configurations_are_told_apart_by_their_backbones() -> None:
    labels = [text.get_text() for text in pareto_figure(numbered(13, 1), Limits()).legends[0].get_texts()]
    assert labels == ["ViT-T"]


def test_a_crowded_front_joins_what_is_cheapest_and_labels_cross_no_line() -> None:
    advice = numbered(13, 5)
    assert len(advice.chosen) == 65
    figure = pareto_figure(advice, Limits())
    for axes in figure.axes:
        (front,) = [line for line in axes.get_lines() if line.get_gid() == "front"]
        assert (np.diff(xs(front)) > 0).all()
        assert (np.diff(ys(front)) > 0).all()
        line = front.get_transform().transform_path(front.get_path())
        shown = [text for text in axes.texts if text.get_visible()]
        assert shown
        assert not any(line.intersects_bbox(text.get_window_extent(), filled=False) for text in shown)
    assert "none is better at a lower cost" in figure.legends[0].get_title().get_text()


def test_a_value_that_all_recommended_cells_have_is_said() -> None:
    rows = [
        cell("vit-t", side, axes={"connector": name}, end_to_end_s=time_s * side, visual_tokens=side)
        for side in (224, 448)
        for name, time_s in (("mlp2", 1e-4), ("mlp3", 2e-4))
    ]
    sheet = advice_sheet(advise(frame(rows), Limits()))
    assert "connector" not in [column.title for column in sheet.columns]
    assert sheet.note.endswith("All of them: mlp2.")


def test_videos_of_one_size_are_drawn_against_their_frames() -> None:
    rows = [cell("vit-t", 336, scale=n, axes={"frames": n}) for n in (1, 4, 16)]
    advice = advise(frame(rows), Limits())
    assert advice.shown_quality == "frames"
    axes = pareto_figure(advice, Limits()).axes[0]
    assert axes.get_ylabel() == "Frames per video"
    labels = [text.get_text() for text in axes.texts if text.get_gid() == "cell"]
    assert labels == ["ViT-T 336² 16 frames", "ViT-T 336² 4 frames", "ViT-T 336² 1 frame"]


def test_steps_are_between_cells_of_equal_frames() -> None:
    rows = [cell("vit-t", s, scale=n, axes={"frames": n}) for s in (224, 448) for n in (1, 16)]
    advice = advise(frame(rows), Limits())
    assert advice.curves == [[0, 2], [1, 3]]
    axes = pareto_figure(advice, Limits()).axes[0]
    steps = {text.get_text() for text in axes.texts if text.get_gid() == "lever"}
    assert steps == {"224² → 448²"}


def test_a_cost_axis_has_ticks_however_short_it_is() -> None:
    rows = [cell("vit-t", s) for s in (448, 672)]
    figure = pareto_figure(advise(frame(rows), Limits()), Limits())
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2
