"""Recommendations: limits, the Pareto front, scores, and messages without a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame, sweep
from vlmprof.analysis.advice import Limits, advise, pareto_front
from vlmprof.analysis.levers import Change
from vlmprof.analysis.scores import load_scores
from vlmprof.errors import UserError
from vlmprof.records import Row, StageFigures, Status


def test_the_front_is_what_no_other_point_beats() -> None:
    random = np.random.default_rng(0)
    points = random.integers(0, 6, size=(60, 3)).astype(float)
    beaten = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert (pareto_front(points) == ~np.array(beaten)).all()
    assert pareto_front(np.array([[1.0, np.nan], [2.0, 5.0], [1.0, 5.0]])).tolist() == [False, False, True]
    assert pareto_front(np.empty((0, 2))).tolist() == []


def test_limits_hold_and_the_largest_image_leads() -> None:
    run = frame(sweep(resolutions=(224, 512, 1024)))
    advice = advise(run, Limits(memory_bytes=900 * 2**20, ttft_s=8e-3))
    assert advice.chosen.iloc[0][["backbone", "resolution"]].tolist() == ["vit-t", "512"]
    fits = advice.candidates[advice.candidates["fits"]]
    assert (fits["memory_bytes"] <= 900 * 2**20).all()
    assert (fits["ttft_s"] <= 8e-3).all()
    assert set(advice.chosen["backbone"]) == {"vit-t"}
    assert advise(run, Limits(ttft_s=1e-9)).chosen.empty
    without_memory = advise(frame([cell(gpu=False, peak_rss_bytes=None)]), Limits(ttft_s=1e-9))
    assert without_memory.nearest_miss.endswith("limits; the shortest time to first token is 2.06 ms")


def test_memory_is_what_the_device_must_have() -> None:
    run = frame([cell(nvml_process_bytes=5 * 2**30), cell(resolution=512, gpu=False)])
    needed = advise(run, Limits()).candidates["memory_bytes"]
    assert needed.tolist() == [5 * 2**30, run["peak_rss_bytes"].iloc[1]]


def test_memory_of_cells_that_share_an_llm_is_that_of_all_of_them() -> None:
    """The driver's figure includes the LLM only where it was measured."""
    gib = 2**30
    measured = cell("vit-s", peak_reserved_bytes=13 * gib, nvml_process_bytes=14 * gib)
    sharing = cell(
        "vit-b", peak_reserved_bytes=14 * gib, nvml_process_bytes=gib, llm_shared_from=measured.cell_id
    )
    needed = advise(frame([measured, sharing]), Limits()).candidates["memory_bytes"]
    assert needed.tolist() == [13 * gib, 14 * gib]


def test_first_token_comes_before_decoding() -> None:
    row = cell(stages={"decode": StageFigures(host_s=0.3)}, end_to_end_s=1.0, ttft_s=0.6)
    assert advise(frame([row]), Limits()).candidates["ttft_s"].tolist() == [0.6]
    assert advise(frame([cell(end_to_end_s=1.0)]), Limits()).candidates["ttft_s"].tolist() == [1.0]


def test_scores_make_the_front_of_quality_and_the_correlations() -> None:
    rows = [cell("vmamba-s", 224), cell("vmamba-s", 512), cell("vmamba-s", "1333x800"), cell("vit-s", 224)]
    advice = advise(frame(rows), Limits(), scores=load_scores("kuo2026"), price_per_hour=3.6)
    assert advice.quality == "weighted_overall"
    assert [(row.backbone, row.resolution) for row in advice.chosen.itertuples()] == [
        ("vmamba-s", "1333x800"), ("vmamba-s", "512"), ("vmamba-s", "224"), ("vit-s", "224"),
    ]  # fmt: skip
    assert advice.candidates["cost_per_thousand_images"].iloc[0] == pytest.approx(rows[0].end_to_end_s)
    assert known(advice.correlation).loc["weighted_overall", "ttft_s"] == pytest.approx(1.0)
    vqa = advise(frame(rows), Limits(), scores=load_scores("kuo2026"), score="weighted_vqa")
    assert tuple(vqa.chosen.iloc[0][["backbone", "resolution"]]) == ("vmamba-s", "512")


def test_a_users_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("backbone,resolution,accuracy\nvit-t,224,50.5\nvit-t,512,60\n")
    advice = advise(frame(sweep(("vit-t",), (224, 512, 1024))), Limits(), scores=load_scores(path))
    assert advice.quality == "accuracy"
    assert advice.chosen["accuracy"].tolist() == [60.0, 50.5]
    assert advice.correlation is None


def test_a_cell_without_the_score_is_no_candidate(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("backbone,vqa,f1\nvit-t,50,1\nvit-s,60,\nvit-b,inf,3\n")
    run = frame(sweep(("vit-t", "vit-s", "vit-b"), (224,)))
    by_f1 = advise(run, Limits(), scores=load_scores(path))
    assert by_f1.candidates["backbone"].tolist() == ["vit-t", "vit-b"]
    assert by_f1.remarks == ["scores: 1 of 3 cells without a score: left out"]
    by_vqa = advise(run, Limits(), scores=load_scores(path), score="vqa")
    assert by_vqa.chosen["backbone"].tolist() == ["vit-s", "vit-t"]


def test_columns_of_a_run_are_no_scores(tmp_path: Path) -> None:
    """An exported table of another run, with a column of scores added."""
    path = tmp_path / "scores.csv"
    other = frame(sweep(("vit-t", "vit-s"), (224,), scale=100.0)).assign(accuracy=[50, 60], note=np.nan)
    other.to_csv(path)
    run = frame(sweep(("vit-t", "vit-s"), (224,)))
    advice = advise(run, Limits(), scores=load_scores(path))
    assert advice.candidates["end_to_end_s"].tolist() == run["end_to_end_s"].tolist()
    assert (advice.quality, advice.chosen["accuracy"].tolist()) == ("accuracy", [60, 50])
    other.drop(columns="accuracy").to_csv(path, index=False)
    with pytest.raises(UserError, match="scores have only columns of a run: height_px, width_px"):
        advise(run, Limits(), scores=load_scores(path))


def test_energy_counts_where_a_run_has_it() -> None:
    run = frame([cell("vit-t", side, energy_per_image_j=3.0, axes={"batch_size": 4}) for side in (224, 512)])
    advice = advise(run, Limits())
    assert "energy_per_image_j" in advice.costs
    assert advice.candidates["energy_per_image_j"].tolist() == [3.0, 3.0]
    assert "energy_per_image_j" not in advise(frame([cell()]), Limits()).costs
    unknown = frame([cell("vit-t", 224), cell("vit-s", 224, energy_per_image_j=3.0)])
    assert advise(unknown, Limits()).chosen["backbone"].tolist() == ["vit-t"]


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    run = frame(sweep(("vit-t",), (224,)))
    with pytest.raises(UserError, match="nothing to recommend"):
        advise(frame([cell(status=Status.OOM)]), Limits())
    with pytest.raises(UserError, match="no measured cell has a score; there are scores for vit-b at 99"):
        advise(run, Limits(), scores=pd.DataFrame({"backbone": ["vit-b"], "resolution": [99], "f1": [1.0]}))
    with pytest.raises(UserError, match="weighted_vqa"):
        advise(frame([cell("vmamba-s", 224)]), Limits(), scores=load_scores("kuo2026"), score="weighted_vqas")
    with pytest.raises(UserError, match="cannot be read"):
        load_scores(tmp_path / "absent.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no backbone, resolution"):
        load_scores(tmp_path / "bad.csv")


def axes_of(**values: Any) -> Row:
    """A cell with a connector, an LLM and what they cost."""
    ttft_s, tokens, weight = values.pop("ttft_s"), values.pop("tokens"), values.pop("weight", 2**30)
    return cell(
        "vit-t", 448, axes=values, end_to_end_s=ttft_s, visual_tokens=tokens,
        stages={"prefill": StageFigures(gpu_s=0.1, weight_bytes=weight)}, energy_per_image_j=10 * ttft_s,
    )  # fmt: skip


CONNECTED = [
    axes_of(connector="mlp2", llm="small", ttft_s=0.4, tokens=784),
    axes_of(connector="pool2", llm="small", ttft_s=0.2, tokens=196),
    axes_of(connector="slow", llm="small", ttft_s=0.3, tokens=196),
    axes_of(connector="mlp2", llm="large", ttft_s=2.0, tokens=784, weight=2**32),
    axes_of(connector="pool2", llm="large", ttft_s=0.9, tokens=196, weight=2**32),
]


def test_without_scores_more_tokens_and_a_larger_llm_are_better() -> None:
    advice = advise(frame(CONNECTED), Limits())
    assert [(row.llm, row.connector) for row in advice.chosen.itertuples()] == [
        ("large", "mlp2"), ("large", "pool2"), ("small", "mlp2"), ("small", "pool2"),
    ]  # fmt: skip
    step = [Change("connector", "pool2", "mlp2")]
    assert advice.levers == [step, [], step, []]
    assert advice.curves == [[0, 1], [2, 3]]
    assert advice.shown_quality == "visual_tokens"


def test_scores_join_all_axes_and_make_one_front() -> None:
    scores = pd.DataFrame({"connector": ["mlp2", "pool2"], "accuracy": [60.0, 55.0]})
    advice = advise(frame(CONNECTED), Limits(), scores=scores)
    assert advice.chosen[["llm", "connector"]].to_numpy().tolist() == [["small", "mlp2"], ["small", "pool2"]]
    assert advice.levers == [[Change("connector", "pool2", "mlp2")], []]
    assert advice.curves == [[0, 1]]
    assert advice.remarks[0] == "scores: the scores do not name llm, so each applies to all values"


def test_energy_and_price_are_limits_too() -> None:
    rows = frame(CONNECTED)
    assert set(advise(rows, Limits(energy_per_image_j=3.5)).chosen["connector"]) == {"pool2"}
    cheap = advise(rows, Limits(cost_per_thousand_images=0.6), price_per_hour=3.6)
    assert cheap.candidates["fits"].tolist() == [True, True, True, False, False]
    none = advise(rows, Limits(energy_per_image_j=1.0), price_per_hour=3.6)
    assert none.nearest_miss.endswith(
        "the lowest energy per image is 2 J, the lowest cost per 1,000 images is 0.2"
    )
    with pytest.raises(UserError, match="no energy per image to limit"):
        advise(frame([cell()]), Limits(energy_per_image_j=1.0))


def test_cells_without_a_limited_cost_are_named() -> None:
    # as where some cells share an LLM, and so have no energy of their own
    rows = frame([cell("vit-t", 224), cell("vit-s", 224, energy_per_image_j=3.0)])
    within = advise(rows, Limits(energy_per_image_j=4.0))
    assert within.chosen["backbone"].tolist() == ["vit-s"]
    assert within.remarks == ["1 of 2 cells have no energy per image and are left out"]
    assert "the lowest energy per image is 3 J" in advise(rows, Limits(energy_per_image_j=1.0)).nearest_miss
    assert advise(rows, Limits(memory_bytes=1e12)).remarks == []


def test_tiles_show_no_more_than_they_hold() -> None:
    tiled = [
        cell("vit-t", side, axes={"tiling": "anyres-336-4"}, tiles=5, end_to_end_s=0.1, visual_tokens=9)
        for side in (672, 1344)
    ]
    whole = cell("vit-t", 1344, axes={"tiling": "none"}, end_to_end_s=0.5, visual_tokens=9)
    rows = [replace(row, peak_allocated_bytes=2**30, peak_reserved_bytes=None) for row in (*tiled, whole)]
    advice = advise(frame(rows), Limits())
    assert advice.candidates["pixels"].tolist() == [672**2, 672**2, 1344**2]
    assert advice.chosen[["resolution", "tiling"]].to_numpy().tolist() == [
        ["1344", "none"], ["1344", "anyres-336-4"],
    ]  # fmt: skip
