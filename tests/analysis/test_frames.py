"""Lines of a frame, and published points as frames."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.helpers.synthetic_runs import cell, frame, sweep
from vlmprof.analysis.frames import axis_columns, split_lines, varying_axes
from vlmprof.analysis.reference import load_reference, reference_title, study_scores
from vlmprof.analysis.runs import Run, join
from vlmprof.errors import UserError
from vlmprof.records import Row, Status
from vlmprof.render.labels import line_label
from vlmprof.units import show_bytes, show_resolution, show_seconds


def test_lines_differ_in_resolution_and_in_nothing_else() -> None:
    rows = sweep(("vit-t", "vit-s"), (512, 224)) + sweep(("vit-t",), (224,), axes={"dtype": "bfloat16"})
    lines = split_lines(frame(rows))
    assert [line.key for line in lines] == [("vit-t", "float32"), ("vit-s", "float32"), ("vit-t", "bfloat16")]
    assert lines[0].sizes.tolist() == [224**2, 512**2]
    assert varying_axes(frame(rows)) == ["dtype"]
    assert axis_columns(frame(rows)) == ["backbone", "resolution", "llm", "connector", "dtype", "batch_size"]


def test_an_axis_that_older_rows_lack_still_makes_lines() -> None:
    rows = [cell("vit-t", 224), cell("vit-t", 224, axes={"mode": "eager"})]
    assert [line.setting for line in split_lines(frame(rows))] == [{"mode": "none"}, {"mode": "eager"}]


def test_only_ok_rows_are_measured_and_the_first_oom_is_found() -> None:
    (line,) = split_lines(frame(sweep(("vit-t",), (224, 512, 1024, 2048), oom_from={"vit-t": 1024})))
    assert line.first_oom is not None
    assert line.first_oom.size == 1024**2
    assert np.isfinite(line.measured("end_to_end_s")).tolist() == [True, True, False, False]
    assert np.isnan(line.measured("gpu_decode_s")).all()
    assert np.isnan(line.measured("no_such_column")).all()


def test_no_digits_are_lost_below_the_next_unit() -> None:
    shown = [show_bytes(999.7 * 2**20), show_bytes(999.4 * 2**20), show_seconds(0.9996), show_seconds(999.9)]
    assert shown == ["1000 MiB", "999 MiB", "1000 ms", "1000 s"]


def test_resolutions_for_people() -> None:
    assert [show_resolution(r) for r in ("512", 512, "1333x800", "512x512")] == [
        "512²",
        "512²",
        "1333×800",
        "512²",
    ]


def test_the_paper_reads_like_a_run() -> None:
    paper = load_reference("kuo2026")
    assert (paper["status"] == Status.OK).sum() == 120
    assert sorted(paper.loc[paper["status"] == Status.OOM, "backbone"]) == [
        "vitdet-b",
        "vitdet-h",
        "vitdet-l",
    ]
    row = paper.query("backbone == 'vmamba-b' and resolution == '224'").iloc[0]
    assert row["host_vision_s"] == 0.01037
    assert row["gpu_prefill_s"] == 0.03788
    assert row["peak_allocated_bytes"] == pytest.approx(13.2957 * 2**30, abs=1)
    assert row["visual_tokens"] == 196
    last = paper.query("backbone == 'vit-t' and resolution == '8192'").iloc[0]
    assert np.isnan(last["end_to_end_s"])
    assert last["gpu_vision_s"] == 2.29336
    assert "2026" in reference_title("kuo2026")
    for flat in paper.astype(object).where(paper.notna(), None).to_dict("records"):
        Row.from_flat({str(name): value for name, value in flat.items()})


def test_scores_ship_with_the_package() -> None:
    scores = study_scores().set_index("model")
    assert scores.loc["vmamba-s-coco-1333x800", "weighted_localization"] == 47.94
    assert len(scores) == 8


def test_unknown_references_and_foreign_frames_are_refused() -> None:
    with pytest.raises(UserError, match="kuo2026"):
        load_reference("kuo-2026")
    with pytest.raises(UserError, match="no rows yet"):
        split_lines(frame([cell()]).iloc[:0])
    with pytest.raises(UserError, match="not rows of a run"):
        split_lines(frame([cell()]).drop(columns="status"))


def test_rows_from_before_tiling_are_on_the_line_of_those_without() -> None:
    old, new = cell("vit-t", 224), cell("vit-t", 448, axes={"tiling": "none"})
    (line,) = split_lines(frame([old, new]))
    assert line.setting == {}
    tiled = cell("vit-t", 448, axes={"tiling": "dynamic-224-4"})
    plain, cut = split_lines(frame([old, new, tiled]))
    assert [line.setting["tiling"] for line in (plain, cut)] == ["none", "dynamic-224-4"]
    assert len(plain.sizes) == 2


def test_rows_from_before_precisions_are_on_the_line_of_the_dtype() -> None:
    old, new = cell("vit-t", 224), cell("vit-t", 448, axes={"llm_precision": "as-dtype"})
    quantized = cell("vit-t", 448, axes={"llm_precision": "int8-weight"})
    plain, other = split_lines(frame([old, new, quantized]))
    assert [line_label(line) for line in (plain, other)] == [
        "ViT-T · LLM as-dtype",
        "ViT-T · LLM int8-weight",
    ]
    assert len(plain.sizes) == 2


def test_frames_are_followed_at_one_resolution_however_it_is_padded() -> None:
    rows = [cell(name, 500, axes={"frames": n}) for name in ("vit-t", "vit-s") for n in (1, 4, 8)]
    padded = frame(rows).assign(height_px=[512] * 3 + [504] * 3, width_px=[512] * 3 + [504] * 3)
    assert [(line.along, line.sizes.tolist()) for line in split_lines(padded)] == [("frames", [1, 4, 8])] * 2


def test_runs_whose_columns_differ_are_joined_without_a_word_from_pandas() -> None:
    run, names = frame([cell()]), [f"of_a_newer_version_{i}" for i in range(120)]
    gaps = [
        pd.DataFrame([{name: 1.0 if i % 2 == n else None for i, name in enumerate(names)}]) for n in (0, 1)
    ]
    runs = [Run(f"run {n}", pd.concat([run, gap], axis=1), {}, {}) for n, gap in enumerate(gaps)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(split_lines(join(runs)[0])) == 2


def test_of_many_lines_each_backbone_has_its_share() -> None:
    rows = [cell(name, 224, axes={"frames": n}) for name in ("vit-t", "vit-s", "vmamba-t") for n in range(9)]
    rows += [cell(name, 448) for name in ("vit-t", "vit-s", "vmamba-t")]
    lines = split_lines(frame(rows), most=8)
    assert [line.backbone for line in lines] == ["vit-t"] * 3 + ["vit-s"] * 3 + ["vmamba-t"] * 2
    assert [line.setting["frames"] for line in lines] == ["0", "1", "2", "0", "1", "2", "0", "1"]
