"""Run folders of newer versions, and lines that cannot be read: said, and otherwise ignored."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.commands import invoke
from tests.helpers.synthetic_runs import samples, sweep, write_run
from vlmprof import store
from vlmprof.analysis.frames import axis_columns, split_lines
from vlmprof.analysis.runs import join, load
from vlmprof.errors import RunWarning, UserError
from vlmprof.manifest import SCHEMA_VERSION, new_manifest
from vlmprof.measure.samples import Samples
from vlmprof.store import RunFolder, load_frame, read_rows

SIZES = (224, 256, 384)
SMALL_AND_LARGE = ("vit-t", "vmamba-t")


def change(run: Path, **added: Any) -> None:
    """Add columns to every row; a list has one value for each."""
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {name: values[i] if isinstance(values, list) else values for name, values in added.items()}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def declare(run: Path, **entries: Any) -> None:
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | entries))


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A run of two lines with columns that are different in every row, and that pandas cannot group."""
    rows = sweep(("vit-t", "vmamba-t"), SIZES)
    run = write_run(tmp_path / "newer", rows, samples(rows))
    change(
        run,
        carbon_per_image_g=[i / 10 for i in range(6)],
        host_projector_s=[i / 100 for i in range(6)],
        kernels_used=[{"ss2d": [i, "fused"]} for i in range(6)],
        tags=[[i] for i in range(6)],
    )
    declare(run, schema_version=SCHEMA_VERSION + 1, axes=["backbone", "resolution", "llm", "dtype"])
    return run


def test_unknown_columns_are_kept_and_split_no_line(newer: Path) -> None:
    with pytest.warns(RunWarning, match="written by a newer vlmprof") as said:
        frame = load_frame(newer)
    assert len(said) == 1
    assert frame["carbon_per_image_g"].tolist() == [i / 10 for i in range(6)]
    assert frame["tags"].tolist() == [[i] for i in range(6)]
    assert "carbon_per_image_g" not in axis_columns(frame)
    assert [len(line.rows) for line in split_lines(frame)] == [3, 3]
    assert [row.axes["backbone"] for row in read_rows(newer)] == ["vit-t"] * 3 + ["vmamba-t"] * 3
    assert "tags" not in read_rows(newer)[0].axes


def test_an_axis_that_only_the_newer_version_knows_tells_lines_apart(newer: Path) -> None:
    change(newer, quantization=[["int8"], ["int8"], ["int8"], "none", "none", "none"], backbone="vit-t")
    declare(newer, axes=["backbone", "resolution", "quantization"])
    with pytest.warns(RunWarning):
        run = load(newer)
    assert [line.setting["quantization"] for line in split_lines(run.frame)] == ['["int8"]', "none"]
    joined, _ = join([run, run])
    assert len(split_lines(joined)) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vlmprof.errors.RunWarning")
def test_every_command_takes_a_newer_run(newer: Path, tmp_path: Path) -> None:
    for words in (
        ["report", newer, "--format", "markdown", "--out", tmp_path],
        ["plot", newer, "--format", "svg", "--out", tmp_path],
        ["compare", newer, newer],
        ["recommend", newer, "--format", "svg", "--out", tmp_path],
        ["export", newer, "--format", "csv", "--out", tmp_path],
    ):
        result = invoke(*words)
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert pd.read_csv(tmp_path / "rows.csv")["host_projector_s"].tolist() == [i / 100 for i in range(6)]
    drawn = (tmp_path / "six_panel.svg").read_text()
    assert drawn.count('id="measured"') == 6 * 2, "two lines in six panels"


def test_a_sweep_does_not_write_into_a_newer_run(newer: Path) -> None:
    manifest = new_manifest({}, "vlmprof sweep", {})
    with pytest.raises(UserError, match=r"newer vlmprof .*; update vlmprof, or choose another"):
        RunFolder(newer, manifest)


def test_a_run_from_before_versions_gets_one_when_a_sweep_goes_on(tmp_path: Path) -> None:
    old = {"spec": {"axes": {"backbone": ["vit-t"]}}, "command": "first", "environment": {}}
    with RunFolder(tmp_path / "run", old) as folder:
        folder.append(sweep(("vit-t",), (224,))[0], Samples())
    with RunFolder(tmp_path / "run", new_manifest(old["spec"], "second", {})) as folder:  # type: ignore[arg-type]
        assert len(folder.rows()) == 1
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (manifest["schema_version"], manifest["command"]) == (SCHEMA_VERSION, "first")
    assert {"backbone", "resolution", "dtype"} <= set(manifest["axes"])


def test_lines_that_cannot_be_read_are_counted_aloud(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sweep(("vit-t",), (224, 256, 384, 512)))
    lines = (run / "rows.jsonl").read_text().splitlines()
    for bad in (
        "{",
        '{"cell_id": ["a"], "height_px": 1, "width_px": 1, "status": "ok"}',
        lines[1].replace('"vit-t"', '["vit-t"]', 1),
        lines[1].replace('"ok"', '"paused"'),
        lines[1].replace('"256"', '"256²"'),
        json.dumps({**json.loads(lines[1]), "end_to_end_s": 1e308}),
        json.dumps({**json.loads(lines[1]), "weight_bytes": 10**25}),
        json.dumps({**json.loads(lines[1]), "host_vision_s": 5e-324}),
        json.dumps({**json.loads(lines[1]), "host_vision_s": math.nan}),
    ):
        (run / "rows.jsonl").write_text("\n".join([lines[0], bad, "null", lines[3][:50]]))
        for read in (load_frame, read_rows):
            with pytest.warns(RunWarning, match=r"run: 3 of 4 lines could not be read and are ignored"):
                assert len(read(run)) == 1
    (run / "rows.jsonl").write_text("null\n")
    with (
        pytest.warns(RunWarning, match="1 of 1 lines"),
        pytest.raises(UserError, match="no rows that can be"),
    ):
        load_frame(run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempt to set non-positive ylim")
def test_numbers_at_the_ends_of_what_is_read_break_no_command(tmp_path: Path) -> None:
    rows = sweep(SMALL_AND_LARGE, (224, 256, 384, 512))
    run = write_run(tmp_path / "run", rows, samples(rows))
    change(run, end_to_end_s=[1.1e-15, 8e18] * 4, host_vision_s=8e18, weight_bytes=8 * 10**18)
    for command in ("plot", "report", "export", "recommend"):
        assert invoke(command, run).exit_code == 0


def test_a_run_of_this_version_is_read_in_silence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sweep(("vit-t",), SIZES))
    declare(run, schema_version=SCHEMA_VERSION)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(store.load_frame(run)) == 3
