"""Traces: stages and modules by name, operators by stage, and display in TensorBoard."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import vlmprof

STAGES = ["preprocess", "vision", "connector", "prefill"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("trace")
    ended = vlmprof(
        folder, "trace", "quick", "--backbone", "vmamba-t", "--resolution", "64", "--out", "traces"
    )
    assert ended.returncode == 0, ended.stderr
    return folder / "traces", ended.stdout


def test_the_timeline_names_stages_and_the_modules_inside_them(traced: tuple[Path, str]) -> None:
    folder, _ = traced
    (path,) = folder.glob("*.pt.trace.json")
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]
    spans = {e["name"]: (e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "user_annotation"}
    assert sorted(STAGES, key=lambda name: spans[name][0]) == STAGES
    begin, end = spans["vision"]
    inside = [name for name, (a, b) in spans.items() if a >= begin and b <= end and name != "vision"]
    assert "layers.2.blocks.4" in inside
    assert not [name for name in inside if name in STAGES]


def test_operators_are_counted_in_their_own_stage(traced: tuple[Path, str]) -> None:
    folder, printed = traced
    (path,) = folder.glob("*.operators.csv")
    with path.open() as handle:
        rows = list(csv.DictReader(handle))
    by_stage = {stage: {r["operator"]: r for r in rows if r["stage"] == stage} for stage in STAGES}
    # nine SS2D blocks through the tapped level, none in the language model
    assert by_stage["vision"]["vlmprof::ss2d"]["calls"] == "9"
    assert not [name for name in by_stage["prefill"] if "ss2d" in name]
    assert by_stage["connector"]["aten::gelu"]["calls"] == "1"
    assert all(float(row["host_s"]) >= 0 for row in rows)
    assert "vlmprof::ss2d" in printed


def test_an_unknown_cell_is_refused(tmp_path: Path) -> None:
    ended = vlmprof(tmp_path, "trace", "quick", "--cell", "nope")
    assert ended.returncode == 2
    assert "plan --ids" in ended.stderr


def test_a_real_tensorboard_shows_it(traced: tuple[Path, str]) -> None:
    pytest.importorskip("tensorboard")
    folder, _ = traced
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1",
         "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def get(path: str) -> Any:
        url = f"http://127.0.0.1:{port}/data/plugin/pytorch_profiler/{path}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.loads(answer.read())

    try:
        deadline = time.monotonic() + 90
        runs: list[str] = []
        while not runs:
            assert time.monotonic() < deadline
            time.sleep(0.5)
            try:
                answer = get("runs")
                runs = [] if answer["loading"] else answer["runs"]
            except OSError:
                continue
        views = get(f"views?run={runs[0]}")
        assert {"Overview", "Operator", "Trace", "Memory"} <= set(views)
        worker = get(f"workers?run={runs[0]}&view=Operator")[0]
        span = get(f"spans?run={runs[0]}&worker={worker}")[0]
        table = json.dumps(
            get(f"operation/table?run={runs[0]}&worker={worker}&span={span}&group_by=Operation")
        )
        assert "vlmprof::ss2d" in table
    finally:
        server.kill()
        server.wait()
