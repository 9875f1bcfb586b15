"""What a notebook does with a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vlmprof
from tests.helpers.commands import one_run
from vlmprof.errors import UserError


@pytest.mark.slow
def test_a_notebook_holds_a_run(tmp_path: Path) -> None:
    loaded = vlmprof.load(one_run(tmp_path / "run"))
    assert len(loaded.frame) == 18
    assert len(loaded.plot().axes) == 6
    written = {path.name for path in loaded.report(tmp_path / "notebook")}
    assert {"report.html", "report.md"} < written == {path.name for path in (tmp_path / "notebook").iterdir()}
    assert "<table" in loaded._repr_html_()
    assert loaded in [loaded]
    assert vlmprof.load(tmp_path / "run") not in {loaded}
    with pytest.raises(UserError, match="unknown statistic 'mode'"):
        loaded.plot(statistic="mode")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not a run folder"):
        vlmprof.load(tmp_path)


def test_importing_vlmprof_stays_cheap() -> None:
    heavy = ("pandas", "numpy", "torch", "matplotlib")
    code = f"import sys, vlmprof; print(any(name in sys.modules for name in {heavy}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
