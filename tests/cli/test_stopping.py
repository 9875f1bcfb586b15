"""Commands that are interrupted, terminated or hung up on while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SMALL = ("--backbone", "vit-t", "--llm", "llama-23m", "--dtype", "float32", "--device", "cpu")
COMMANDS = {
    "sweep": ("sweep", "quick", *SMALL, "--iterations", "100000"),
    "estimate": ("estimate", "kuo2026-fig4", "--gpu", "h200"),
    "frontier": ("frontier", *SMALL, "--memory", "200MiB", "--largest", "2048"),
    "trace": ("trace", "quick", *SMALL),
    "kernels verify": ("kernels", "verify", "--device", "cpu"),
    "kernels bench": ("kernels", "bench", "--device", "cpu", "--seconds", "30"),
    "kernels bench --backbones": ("kernels", "bench", "--device", "cpu", "--backbones", "vmamba-t"),
    "kernels inspect": ("kernels", "inspect"),
}  # fmt: skip
SIGNALS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "hung up on"),
}


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def alive(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def temporary(folder: Path) -> Path:
    """A temporary folder that is too long for the path of a socket."""
    return folder / ("temporary-" * 8) / "tmp"


def start(words: tuple[str, ...], folder: Path) -> subprocess.Popen[str]:
    temporary(folder).mkdir(parents=True)
    environment = {
        **os.environ,
        "TMPDIR": str(temporary(folder)),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "OMP_NUM_THREADS": "1",
    }
    # signals that this process ignores, as one in the background does, would be ignored by the command too
    code = """if True:
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        from vlmprof.cli import main
        sys.argv[0] = 'vlmprof'
        main()"""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_stopped_leaves_one_line_and_nothing_else(name: str, tmp_path: Path) -> None:
    # each signal meets some of the commands, by itself or as a terminal sends it to all their processes
    number = list(COMMANDS).index(name)
    signum, to_all = list(SIGNALS)[number % len(SIGNALS)], number % 2 == 0
    exit_code, word = SIGNALS[signum]
    process = start(COMMANDS[name], tmp_path)
    # it works by other processes
    wait_for(lambda: len(alive(process.pid)) > 1 or process.poll() is not None, 60)
    time.sleep(1)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signum) if to_all else process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith(f"vlmprof: {word}"), stderr
    wait_for(lambda: not alive(process.pid), 30)
    left = {path.name for path in temporary(tmp_path).iterdir() if not path.name.startswith("torchinductor_")}
    assert left == set()  # torch makes that folder when its compiler is imported, and uses it again


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    code = """if True:
        import os, signal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        from vlmprof.cli.stopping import stoppable
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            print("on")"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "on\n"


@pytest.mark.slow
@pytest.mark.parametrize("library", ["pass", "raise ImportError('loaded in part')"])
def test_a_library_that_swallows_the_stop_or_fails_of_it_does_not_keep_it(library: str) -> None:
    code = f"""if True:
        import os, signal, time
        from vlmprof.cli.stopping import Stopped, stoppable
        try:
            with stoppable():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                except BaseException:
                    {library}
                time.sleep(60)
        except Stopped as stop:
            print(stop.line())"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.stdout == "terminated\n"


@pytest.mark.slow
def test_clean_up_after_a_stop_is_not_interrupted_by_the_stop_again() -> None:
    code = """if True:
        import os, signal, time
        from vlmprof.cli.stopping import PATIENCE_S, Stopped, stoppable
        try:
            with stoppable():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    time.sleep(3 * PATIENCE_S)
                    print("cleaned up")
        except Stopped as stop:
            print(stop.line())"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ended.stdout == "cleaned up\nterminated\n"


@pytest.mark.slow
def test_a_stop_is_heeded_while_the_fork_server_imports_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "slow_library.py").write_text("import time; print('importing', flush=True); time.sleep(3600)")
    code = """if True:
        from vlmprof.cli.stopping import stoppable
        from vlmprof.execution import processes, starting
        with stoppable():
            starting.start_fork_server("slow_library")
            processes.call_in_process("os:getpid", ())"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        time.sleep(1)  # it waits for the fork server by now
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)  # until nobody holds its output open, the server included
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "vlmprof.cli.stopping.Stopped: terminated"
