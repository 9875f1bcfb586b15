"""`vlmprof kernels inspect`: its rows, and that nothing is compiled twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vlmprof.kernels.tools.inspect import compile_launch

pytest.importorskip("triton")

import triton

from vlmprof.cli.kernels import app
from vlmprof.kernels.common.backends import triton_interpreted
from vlmprof.kernels.tools import inspect_cache, launch_variants
from vlmprof.kernels.tools.launch_variants import Launch, all_launches

if triton_interpreted():
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

SMALL = "cross_"
NAMES = [launch.name for launch in all_launches() if SMALL in launch.name]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The kernels that Triton is asked to compile, in a test that begins with nothing kept."""
    monkeypatch.setenv("VLMPROF_TUNING_CACHE", str(tmp_path / "cache" / "tuning.json"))
    asked: list[str] = []
    real = triton.compile

    def counting(source: Any, **more: Any) -> Any:
        asked.append(source.fn.__name__)
        return real(source, **more)

    monkeypatch.setattr(triton, "compile", counting)
    return asked


def inspect(*words: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *words])


@pytest.mark.slow
def test_what_was_compiled_is_kept_and_printed_again(compiled: list[str]) -> None:
    first = inspect("--kernel", SMALL)
    assert first.exit_code == 0, first.output
    assert [line.split("sm_90")[0].strip() for line in first.output.splitlines()[1:]] == NAMES
    assert len(compiled) == len(NAMES) == 6
    again = inspect("--kernel", SMALL)
    assert len(compiled) == 6
    assert again.output == first.output
    listed = json.loads(inspect("--kernel", SMALL, "--json").stdout)["tables"]["inspect"]
    assert [row["name"] for row in listed] == NAMES
    assert [str(row["registers"]) for row in listed] == [
        line.split("sm_90")[1].split()[0] for line in first.output.splitlines()[1:]
    ]
    rows, mixes = (inspect("--kernel", SMALL, "--mix").output.splitlines()[start::2] for start in (1, 2))
    assert rows == first.output.splitlines()[1:]
    assert all(re.fullmatch(r" +(\w+ \d+(, )?)+", mix) for mix in mixes)
    assert len(compiled) == 6


def test_another_architecture_is_compiled_for(compiled: list[str]) -> None:
    inspect("--kernel", "cross_scan bf16")
    inspect("--kernel", "cross_scan bf16", "--arch", "sm_80")
    assert len(compiled) == 2


def test_a_kernel_is_compiled_again_when_its_launch_changes(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect("--kernel", "cross_scan bf16")
    launched_otherwise(monkeypatch, lambda options: {**options, "num_warps": 8})
    inspect("--kernel", "cross_scan bf16")
    assert len(compiled) == 2


def launched_otherwise(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    changed = [replace(launch, options=change(launch.options)) for launch in all_launches()]
    monkeypatch.setattr(launch_variants, "all_launches", lambda: iter(changed))


@pytest.mark.slow
def test_what_cannot_be_read_is_compiled_again(compiled: list[str]) -> None:
    first = inspect("--kernel", "cross_scan bf16")
    (kept,) = inspect_cache.folder().glob("*.json")
    for damage in ("", "{}", json.dumps({"name": "cross_scan bf16"})):
        kept.write_text(damage)
        assert inspect("--kernel", "cross_scan bf16").output == first.output
    assert len(compiled) == 4


@pytest.mark.slow
def test_one_that_does_not_compile_is_named_and_fails(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(launch: Launch, architecture: str) -> Any:
        if launch.name == "cross_scan fp16":
            raise ValueError("no such thing\nat line 3")
        return compile_launch(launch, architecture)

    monkeypatch.setattr(inspect_cache, "compile_launch", broken)
    for _ in range(2):  # a failure is not kept
        shown = inspect("--kernel", SMALL)
        assert shown.exit_code == 1
        assert len([line for line in shown.output.splitlines() if "sm_90  " in line]) == 5
        assert shown.output.endswith("cross_scan fp16 does not compile for sm_90: no such thing\n")


@pytest.mark.slow
def test_it_says_which_kernel_it_compiles_on_standard_error(tmp_path: Path) -> None:
    code = (
        "import sys, vlmprof.activity as a; a.PATIENCE_S = a.LINES_APART_S = 0; a.TICK_S = 0.01;"
        "from vlmprof.cli import kernels_inspect, main; kernels_inspect.PATIENCE_S = 0;"
        "sys.argv[1:] = ['kernels', 'inspect', '--kernel', 'cross_scan bf16']; main()"
    )
    environment = {"VLMPROF_TUNING_CACHE": str(tmp_path / "t.json"), "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert ended.returncode == 0, ended.stderr
    assert "compiling cross_scan bf16 (kernel 1 of 1 for sm_90)" in ended.stderr
    assert "compiling" not in ended.stdout
