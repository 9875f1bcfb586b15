"""The scaling figure as files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.errors import UserError
from vlmprof.records import Row
from vlmprof.render.figures.six_panel import save_six_panel, six_panel


@pytest.mark.slow
def test_files_are_written_and_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = sweep(("vit-t", "vmamba-t"), (224, 512))
    first = save_six_panel(frame(rows), tmp_path / "a", samples(rows), formats=("png", "pdf", "svg"))
    second = save_six_panel(frame(rows), tmp_path / "b", samples(rows), formats=("png", "pdf", "svg"))
    assert [path.name for path in first] == ["six_panel.png", "six_panel.pdf", "six_panel.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert first[1].read_bytes().startswith(b"%PDF")


def test_drawing_leaves_no_global_state() -> None:
    before = dict(mpl.rcParams)
    six_panel(frame(sweep(("vit-t",), (224,))))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("options", "rows", "says"),
    [
        ({"width": "three-column"}, [cell()], "unknown figure width"),
        ({"reference": "kuo2025"}, [cell()], "kuo2026"),
        ({}, [], "not rows of a run"),
    ],
)
def test_mistakes_are_one_clear_line(options: dict[str, Any], rows: list[Row], says: str) -> None:
    with pytest.raises(UserError, match=says):
        six_panel(frame(rows), **options)


def test_an_unknown_format_or_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean"):
        save_six_panel(frame([cell()]), tmp_path, formats=("pngg",))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the figure"):
        save_six_panel(frame([cell()]), tmp_path / "file", formats=("png",))
