"""Scores joined by whichever axes their table names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.synthetic_runs import cell, frame
from vlmprof.analysis.levers import levers_of
from vlmprof.analysis.scores import Scored, load_scores, with_scores
from vlmprof.errors import UserError


def run() -> pd.DataFrame:
    return frame(
        [
            cell(name, side, axes={"connector": connector, "batch_size": batch})
            for name in ("vit-t", "vit-s")
            for side in (224, "672x448")
            for connector in ("mlp2", "pool2")
            for batch in (1, 4)
        ]
    )


def scored(tmp_path: Path, text: str) -> Scored:
    (tmp_path / "scores.csv").write_text(text)
    rows = run()
    return with_scores(rows, load_scores(tmp_path / "scores.csv"), levers_of(rows))


def test_every_axis_that_the_table_names_counts(tmp_path: Path) -> None:
    found = scored(tmp_path, "connector,backbone,batch_size,resolution,f1\nmlp2,vit-t,4,672x448,0.5\n")
    (only,) = found.cells[["backbone", "resolution", "connector", "batch_size", "f1"]].to_dict("records")
    assert only == {
        "backbone": "vit-t", "resolution": "672x448", "connector": "mlp2", "batch_size": 4, "f1": 0.5,
    }  # fmt: skip
    assert found.names == ["f1"]
    assert found.remarks == ["15 of 16 cells without a score: left out"]


def test_a_missing_axis_and_an_empty_field_apply_to_all_values(tmp_path: Path) -> None:
    found = scored(tmp_path, "connector,resolution,f1\nmlp2,224,0.5\npool2,,0.4\n")
    by_connector = found.cells.groupby("connector")["f1"].agg(["count", "max"])
    assert by_connector.to_dict("index") == {
        "mlp2": {"count": 4, "max": 0.5},
        "pool2": {"count": 8, "max": 0.4},
    }
    assert found.remarks == [
        "the scores do not name backbone, batch size, so each applies to all values",
        "2 of 2 scores match several cells each, 12 cells together",
        "4 of 16 cells without a score: left out",
    ]


def test_what_matches_nothing_or_twice_is_counted(tmp_path: Path) -> None:
    text = "backbone,connector,f1\nvit-t,mlp2,0.5\nvit-t,mlp2,0.9\nvit-t,pool4,0.3\nvit-s,,0.6\n"
    found = scored(tmp_path, text)
    assert found.cells.groupby("backbone")["f1"].max().to_dict() == {"vit-t": 0.5, "vit-s": 0.6}
    assert found.remarks[1:] == [
        "1 of 4 scores match no cell: vit-t, connector pool4",
        "3 of 4 scores match several cells each, 12 cells together",
        "4 cells with several scores: the first in the file counts",
        "4 of 16 cells without a score: left out",
    ]


def test_rows_from_before_an_axis_existed_have_the_score_of_its_default(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("frames,tiling,f1\n1,none,0.5\n8,none,0.7\n")
    rows = frame([cell("vit-t", 224), cell("vit-t", 448, axes={"frames": 8, "tiling": "none"})])
    found = with_scores(rows, load_scores(tmp_path / "scores.csv"), levers_of(rows))
    assert found.cells["f1"].tolist() == [0.5, 0.7]


def test_a_table_needs_an_axis_and_a_score(tmp_path: Path) -> None:
    for text, lacks in (("connector\nmlp2\n", "numeric column"), ("model,f1\na,1\n", "or other axis")):
        (tmp_path / "scores.csv").write_text(text)
        with pytest.raises(UserError, match=f"has no .*{lacks}"):
            load_scores(tmp_path / "scores.csv")
    with pytest.raises(UserError, match="no measured cell has a score; there are scores for connector pool4"):
        scored(tmp_path, "connector,f1\npool4,1\n")
