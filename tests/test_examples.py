"""The `>>>` examples of the notebook entry points, run in a folder with two small runs."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.helpers.synthetic_runs import samples, sweep, write_run


@pytest.mark.parametrize("module", ["vlmprof", "vlmprof.notebook", "vlmprof.analysis.compare"])
def test_examples_do_what_they_say(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scale in (("mine", 1.0), ("slower", 1.25)):
        rows = sweep(("vit-t", "vmamba-t"), (224, 512), scale=scale)
        write_run(tmp_path / "runs" / name, rows, samples(rows, spread=0.01))
    monkeypatch.chdir(tmp_path)
    ran = doctest.testmod(importlib.import_module(module), verbose=False)
    assert ran.failed == 0
    assert ran.attempted > 0
