"""Commands that are interrupted, terminated or hung up on while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
