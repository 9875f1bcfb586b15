"""Sweeps of the backbones in `faulty.py` through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import vlmprof

HERE = Path(__file__).parent
SWEEP = [sys.executable, "-m", "vlmprof", "sweep"]
SPEC = """
[axes]
backbone = [{backbones}]
resolution = {resolutions}
llm = "llama-23m"
dtype = "float32"
[fixed]
warm_up = 1
iterations = 2
stages = ["preprocess", "vision", "connector"]
"""


def write_spec(folder: Path, names: list[str], resolutions: list[int]) -> Path:
    path = folder / "spec.toml"
    quoted = ", ".join(f'"faulty:{name}"' for name in names)
    path.write_text(SPEC.format(backbones=quoted, resolutions=resolutions))
    return path


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2", **more}


def sweep(
    folder: Path, spec: Path, *options: str, verbosity: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        return vlmprof(folder, *verbosity, "sweep", spec, "--out", "run", *options)


def sweep_by_itself(folder: Path, spec: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for what depends on its environment."""
    return subprocess.run(
        [*SWEEP, str(spec), "--out", "run"],
        cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def rows(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = (folder / "run" / "rows.jsonl").read_text().splitlines()
    return {(r["backbone"].removeprefix("faulty:"), r["resolution"]): r for r in map(json.loads, lines)}
