"""A sweep on a local Ray cluster of two nodes, one of which is lost during the sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

HELPERS = Path(__file__).parents[1] / "helpers"
SPEC = """
[axes]
backbone = ["faulty:fine", "faulty:slow", "faulty:device_oom"]
resolution = [32, 48, 64]
llm = "llama-23m"
dtype = "float32"
[fixed]
warm_up = 0
iterations = 2
stages = ["vision", "connector"]
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Two nodes of one processor each; tasks find the test's own backbones."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
    monkeypatch.setenv("SLOW_S", "4")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    worker = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster, worker
    cluster.shutdown()


def test_a_lost_node_costs_no_row(cluster: tuple[Any, Any], tmp_path: Path) -> None:
    nodes, worker = cluster
    (tmp_path / "spec.toml").write_text(SPEC)
    command = [sys.executable, "-m", "vlmprof", "sweep", "spec.toml", "--out", "run", "--ray", nodes.address]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=dict(os.environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    rows = tmp_path / "run" / "rows.jsonl"
    deadline = time.monotonic() + 180
    while not (rows.exists() and len(rows.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)
    nodes.remove_node(worker, allow_graceful=False)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr

    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(found) == len({row["cell_id"] for row in found}) == 9
    status = {(row["backbone"].removeprefix("faulty:"), row["resolution"]): row["status"] for row in found}
    assert [status["fine", size] for size in ("32", "48", "64")] == ["ok"] * 3
    assert [status["slow", size] for size in ("32", "48", "64")] == ["ok"] * 3
    assert status["device_oom", "32"] == "oom"
    assert {status["device_oom", size] for size in ("48", "64")} <= {"oom", "skipped"}
    logs = {path.stem for path in (tmp_path / "run" / "logs").iterdir()}
    assert {row["cell_id"] for row in found if row["status"] == "oom"} == logs


@pytest.mark.slow
def test_a_node_that_rests_holds_up_no_other(
    cluster: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmprof.execution.launchers import Job
    from vlmprof.execution.launchers.ray import connect
    from vlmprof.plan import make_plan
    from vlmprof.spec import build_spec

    monkeypatch.syspath_prepend(HELPERS)
    nodes, _ = cluster
    axes = {"backbone": "faulty:fine", "resolution": [32, 48, 64], "llm": "llama-23m", "dtype": "float32"}
    fixed = {"warm_up": 0, "iterations": 2, "stages": ["vision", "connector"], "device": "cpu"}
    spec = build_spec({"axes": axes, "fixed": fixed}, {}, "test")
    jobs = [Job(cell, spec.settings, tmp_path / cell.cell_id) for cell in make_plan(spec)]
    launcher, _ = connect(nodes.address, "cpu", ())
    ended = []
    with launcher:
        launcher.start(jobs[0])
        ended.append(launcher.wait())
        launcher.repeat(ended[0], rest_s=40.0)
        for job in jobs[1:]:
            assert launcher.has_room()
            launcher.start(job)
            assert not launcher.has_room()
            ended.append(launcher.wait())
        ended.append(launcher.wait())
    assert [finished.job.cell.axes.resolution for finished in ended] == ["32", "48", "64", "32"]
    assert [finished.row.status for finished in ended] == ["ok"] * 4
    assert ended[3].place == ended[0].place != ended[1].place
