"""What the README says of notebooks, run as it is written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic_runs import samples, sweep, write_run

README = Path(__file__).parents[2] / "README.md"


def test_the_notebook_example_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text(encoding="utf-8").split("## In a notebook\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.S)
    rows = sweep(("vit-t", "vmamba-t"), (224, 512))
    write_run(tmp_path / "runs" / "mine", rows, samples(rows))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert isinstance(names["figure"], Figure)
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert {"report.html", "report.md"} <= {path.name for path in (tmp_path / "runs" / "mine").iterdir()}
