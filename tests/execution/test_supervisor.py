"""What becomes of a cell whose fork server dies, and what is said of a cell that failed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from vlmprof.execution import supervisor
from vlmprof.execution.endings import in_plain_words
from vlmprof.execution.processes import Ended, call_in_process
from vlmprof.execution.progress import describe
from vlmprof.execution.rows import unmeasured_row
from vlmprof.execution.starting import PRELOAD, context, start_fork_server
from vlmprof.measure.samples import Samples
from vlmprof.plan import make_plan
from vlmprof.records import Status
from vlmprof.settings import Machine
from vlmprof.spec import load_spec

SPEC = load_spec("quick", {"backbone": ["vit-t"], "resolution": ["64"]})
(CELL,) = make_plan(SPEC)


@pytest.fixture
def _bare_server() -> Iterator[None]:
    """A fork server that imports little and so starts at once, beside the one that other tests share."""
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    before = dict(vars(server))
    vars(server).update({k: v for k, v in vars(forkserver.ForkServer()).items() if k != "_lock"})
    start_fork_server("vlmprof.execution.fork_server")
    yield
    server._stop()
    vars(server).update(before)
    context().set_forkserver_preload([PRELOAD])


@pytest.mark.slow
@pytest.mark.usefixtures("_bare_server")
def test_a_fork_server_that_is_killed_is_said_to_have_died_and_replaced() -> None:
    def strike(pid: int) -> None:
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]

    assert call_in_process("time:sleep", (60,), on_poll=strike).server_died
    assert call_in_process("os:getppid", ()).value > 0


@pytest.mark.slow
@pytest.mark.usefixtures("_bare_server")
def test_a_fork_server_that_dies_before_it_forks_is_started_again() -> None:
    server = call_in_process("os:getppid", ()).value
    os.kill(server, signal.SIGSTOP)  # it takes the request, and never answers
    threading.Timer(0.5, os.kill, (server, signal.SIGKILL)).start()
    assert call_in_process("os:getppid", ()).value not in (None, server)


@pytest.mark.slow
def test_a_signal_to_terminate_the_group_ends_the_fork_but_not_the_server() -> None:
    start_fork_server()
    server = call_in_process("os:getppid", ()).value

    def strike(pid: int) -> None:
        os.kill(server, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)

    ended = call_in_process("time:sleep", (60,), on_poll=strike)
    assert (ended.exit_code, ended.server_died) == (-signal.SIGTERM, False)
    assert call_in_process("os:getppid", ()).value == server


@pytest.mark.parametrize(("deaths", "status"), [(1, Status.OK), (2, Status.ERROR)])
def test_a_cell_whose_fork_server_died_runs_again_once(
    deaths: int, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = unmeasured_row(CELL, "cpu")
    endings = [Ended(server_died=True)] * deaths + [Ended(value=(row, Samples()))]
    monkeypatch.setattr(supervisor, "call_in_process", lambda *args, **options: endings.pop(0))
    found, _ = supervisor.measure_cell(CELL, SPEC.settings, Machine("cpu", "cpu"), tmp_path / "log")
    assert found.status is status
    if status is Status.OK:
        assert found.warnings == ("measured again, because the fork server died",)
    else:
        assert "the fork server that its process belonged to died" in str(found.message)
        assert len(endings) == 1


def test_a_cell_that_failed_names_its_log() -> None:
    failed = unmeasured_row(CELL, "cpu", Status.ERROR, "ValueError: no")
    assert describe(CELL, failed).endswith(f"error, ValueError: no; log: logs/{CELL.cell_id}.txt")
    assert "log" not in describe(CELL, unmeasured_row(CELL, "cpu", Status.SKIPPED, "too large"))


@pytest.mark.parametrize(
    ("message", "limit_bytes", "said"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 100663296 bytes. Error code 12 (Cannot allocate memory)",
            200 * 2**20,
            "needed 96 MiB more under a limit of 200 MiB",
        ),
        (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of "
            "which 512.00 MiB is free. Including non-PyTorch memory, this process has 10 GiB in use.",
            None,
            "needed 20 GiB more with 512.00 MiB free",
        ),
        ("you tried to allocate 1048576 bytes", None, "needed 1 MiB more than is free"),
        ("CUDA error: out of memory\nsecond line", 2**30, "CUDA error: out of memory"),
        ("std::bad_alloc", None, "std::bad_alloc"),
    ],
)
def test_what_was_needed_is_said_in_plain_words(message: str, limit_bytes: int | None, said: str) -> None:
    assert in_plain_words(message, limit_bytes) == said
