"""A sweep of videos with prefill in chunks, from the command line to rows, tables, figures and the report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import only_line, vlmprof
from vlmprof.analysis.frames import split_lines
from vlmprof.analysis.runs import load
from vlmprof.analysis.series import run_figure
from vlmprof.cost.count import count_cell
from vlmprof.plan import make_plan
from vlmprof.render.labels import line_label
from vlmprof.spec import build_spec

pytestmark = pytest.mark.slow

VIDEOS = {
    "backbone": ["vit-t"], "resolution": ["64"], "connector": ["pool2"],
    "frames": ["1", "7"], "prefill_chunk": ["none", "9"], "batch_size": ["2"],
}  # fmt: skip
SETTINGS = {"frame_batch": "3", "warm_up": "0", "iterations": "2", "prompt_tokens": "3"}
Rows = Mapping[tuple[str, int, object], dict[str, Any]]


def typed(*given: Mapping[str, Sequence[str]]) -> list[str]:
    """The fields of a specification as options."""
    return [
        word
        for fields in given
        for name, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
        for word in ("--" + name.replace("_", "-"), value)
    ]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    ended = vlmprof(folder, "sweep", "quick", "--out", "run", *typed(VIDEOS, SETTINGS))
    assert ended.returncode == 0, ended.stderr
    (folder / "printed").write_text(ended.stdout)
    return folder


@pytest.fixture(scope="module")
def rows(swept: Path) -> Rows:
    lines = (swept / "run" / "rows.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {(row["backbone"], row["frames"], row["prefill_chunk"]): row for row in found}


def test_every_cell_is_measured_with_the_tokens_of_its_frames(rows: Rows) -> None:
    assert len(rows) == 4
    for (_, frames, _), row in rows.items():
        assert row["status"] == "ok"
        assert (row["encoder_tokens"], row["visual_tokens"]) == (16 * frames, 4 * frames)
        assert row["host_vision_s"] > 0


def test_counted_work_is_that_of_the_plan(rows: Rows) -> None:
    spec = build_spec(
        {"axes": {"llm": "llama-23m", "dtype": "float32", **VIDEOS}, "fixed": SETTINGS}, {}, "v"
    )
    for cell in make_plan(spec):
        cost = count_cell(cell, spec.settings, "torch")
        row = rows[cell.axes.backbone, cell.axes.frames, cell.axes.prefill_chunk]
        assert row["cell_id"] == cell.cell_id
        for stage, one in cost.stages.items():
            assert row[f"counted_{stage}_flops"] == one.flops - one.skipped_flops


def test_encoding_does_not_depend_on_chunks_and_grows_with_frames(rows: Rows) -> None:
    for name in ("vision", "connector"):
        flops = {key: row[f"counted_{name}_flops"] for key, row in rows.items()}
        (one,) = {flops["vit-t", 1, chunk] for chunk in ("none", 9)}
        assert {flops["vit-t", 7, chunk] for chunk in ("none", 9)} == {7 * one}


def test_the_table_has_both_axes(swept: Path) -> None:
    printed = (swept / "printed").read_text()
    assert re.search(r"backbone +resolution +frames +prefill chunk +encoder tokens +visual tokens", printed)
    assert re.search(r"ViT-T +64² +7 +9 +112 +28 ", printed)


def test_frames_are_the_x_axis_of_the_figure(swept: Path) -> None:
    run = load(swept / "run")
    figure = run_figure(run.frame, run.samples, "mean")
    assert (figure.along, figure.ticks) == ("frames", {1.0: "1", 7.0: "7"})
    assert [line_label(line) for line in figure.lines] == ["ViT-T · one pass", "ViT-T · chunks of 9"]
    assert [line.size_labels for line in figure.lines] == [("1 frame", "7 frames")] * 2


def test_the_report_speaks_of_frames(swept: Path) -> None:
    assert vlmprof(swept, "report", "run").returncode == 0
    report = (swept / "run" / "report.md").read_text()
    assert "At 7 frames, the encoder's share of end-to-end latency" in report
    assert "the largest video measured" in report
    assert "×: first number of frames out of memory." in report
    assert "first resolution" not in report


def test_a_reference_of_images_cannot_stand_behind_frames(swept: Path) -> None:
    ended = vlmprof(swept, "plot", "run", "--reference", "kuo2026")
    assert ended.returncode == 2
    assert "images of many sizes, and this run videos of one" in only_line(ended)


def test_a_run_from_before_videos_goes_on_with_them(swept: Path, tmp_path: Path) -> None:
    """The row of one frame and one pass is kept, and more frames are measured."""
    old = tmp_path / "old"
    (old / "samples").mkdir(parents=True)
    manifest = json.loads((swept / "run" / "run.json").read_text())
    manifest["axes"] = [axis for axis in manifest["axes"] if axis not in ("frames", "prefill_chunk")]
    for name in ("frames", "prefill_chunk"):
        del manifest["spec"]["axes"][name]
    del manifest["spec"]["fixed"]["frame_batch"]
    (old / "run.json").write_text(json.dumps(manifest))
    first = json.loads((swept / "run" / "rows.jsonl").read_text().splitlines()[0])
    kept = {name: value for name, value in first.items() if name not in ("frames", "prefill_chunk")}
    (old / "rows.jsonl").write_text(json.dumps(kept) + "\n")
    ours = {**VIDEOS, "frames": ["1", "2"], "prefill_chunk": ["none"]}
    fixed = {name: value for name, value in SETTINGS.items() if name != "frame_batch"}
    ended = vlmprof(tmp_path, "sweep", "quick", "--out", "old", *typed(ours, fixed))
    assert ended.returncode == 0, ended.stderr
    run = load(old)
    assert run.frame["frames"].isna().tolist() == [True, False]
    (line,) = split_lines(run.frame)
    assert (line.sizes.tolist(), line.size_labels) == ([1.0, 2.0], ("1 frame", "2 frames"))


def test_more_frames_are_skipped_where_fewer_ran_out_of_memory(tmp_path: Path) -> None:
    axes: dict[str, str | list[str]] = {"backbone": "vit-t", "resolution": ["64", "80"], "frames": ["4", "1"]}
    limit = {"memory_limit": "1MiB", "iterations": "2"}
    vlmprof(tmp_path, "sweep", "quick", "--out", "run", *typed(axes, limit))
    found = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    assert [(row["resolution"], row["frames"], row["status"], row["message"]) for row in found[1:]] == [
        ("80", 1, "skipped", "already out of memory at 64"),
        ("64", 4, "skipped", "already out of memory at 64 with 1 frame"),
        ("80", 4, "skipped", "already out of memory at 64 with 1 frame"),
    ]
    assert (found[0]["status"], found[0]["resolution"], found[0]["frames"]) == ("oom", "64", 1)
