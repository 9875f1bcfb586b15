"""Starting processes from a fork server that is shielded from the terminal, and replaced if it dies."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.util import get_temp_dir
from typing import Any

import psutil

from vlmprof.errors import UserError
from vlmprof.execution.fork_server import GROUP_SIGNALS

logger = logging.getLogger(__name__)

PRELOAD = "vlmprof.execution.preload"
"""The module that the fork server imports for cells."""
LONGEST_SOCKET_FOLDER = 70
"""In bytes: a socket's path may have 107, and multiprocessing adds two names to the folder."""


@cache
def context() -> Any:
    """Return the multiprocessing context of all cells: a fork server, if the system supports it.

    On macOS, system libraries may start threads while the server imports torch, and its forks could crash.
    """
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([PRELOAD])
    return found


def start_fork_server(preload: str = PRELOAD) -> None:
    """Start the fork server, which imports `preload` in the background.

    Has no effect if it is already running, or if the system does not support it.
    """
    if context().get_start_method() == "forkserver":
        context().set_forkserver_preload([preload])
        _ensure_fork_server()


def _ensure_fork_server() -> None:
    with _as_a_fork_server():
        forkserver.ensure_running()
    _end_fork_server_at_exit()


@cache
def _end_fork_server_at_exit() -> None:
    """Otherwise a server that still imports would outlive the command, and hold its output open."""
    owner = os.getpid()

    def end() -> None:
        server = fork_server()
        with suppress(psutil.NoSuchProcess):
            if server is not None and server.ppid() == os.getpid() == owner:
                server.kill()

    atexit.register(end)


_NO_ANSWER = 255
"""The exit code that multiprocessing reports of a fork whose server died."""


def start(process: Any) -> None:
    """Start a process. This may be interrupted while the fork server still imports its libraries."""
    if context().get_start_method() == "forkserver":
        _ensure_fork_server()
        server = fork_server()
        try:
            process.start()
        except (EOFError, ConnectionError):  # it ended before it forked
            if not has_died(server, _NO_ANSWER):
                raise
            logger.warning("the fork server died, and is started again")
            _ensure_fork_server()
            process.start()
    else:
        with _as_a_fork_server():
            process.start()


def fork_server() -> psutil.Process | None:
    """Return the running fork server, if the system supports one."""
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    try:
        return psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:
        return None


def has_died(server: psutil.Process | None, exit_code: int | None) -> bool:
    """Return whether the fork server of a process that ended without an answer is dead.

    multiprocessing then reports `_NO_ANSWER`, slightly before the system reports the end of the server,
    which is left to multiprocessing to wait for.
    """
    if server is None or exit_code != _NO_ANSWER:
        return False
    until_s = time.monotonic() + 1.0
    with suppress(psutil.NoSuchProcess):
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.02)
    return True


_starting = threading.Lock()


@contextmanager
def _as_a_fork_server() -> Iterator[None]:
    """Give Python processes started in this context the same module search path, and shield them from Ctrl-C.

    Otherwise the fork server would search the current folder first and import from there, such as the source
    tree that vlmprof was installed from, or a user's `torch.py`. Signals to the process group stay blocked
    until `fork_server.import_once` ignores them.
    """
    entries = [*filter(None, sys.path), *([os.getcwd()] if "" in sys.path else [])]
    path = os.pathsep.join(entry for entry in entries if os.pathsep not in entry)
    # locks of libraries in a process that was killed are for the tracker to remove, not for users to read of
    ignored = [*filter(None, [os.environ.get("PYTHONWARNINGS")]), "ignore:resource_tracker:UserWarning"]
    handed = {"PYTHONSAFEPATH": "1", "PYTHONPATH": path, "PYTHONWARNINGS": ",".join(ignored)}
    with _starting:
        before = {name: os.environ.get(name) for name in handed}
        os.environ.update(handed)
        _choose_socket_folder()
        # start the tracker first, because its start would unblock the signals
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS) if GROUP_SIGNALS else None
        try:
            yield
        finally:
            if blocked is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _choose_socket_folder() -> None:
    """Put sockets where their paths are short enough, if `TMPDIR` is too long for them."""
    chosen = tempfile.tempdir
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError("no temporary folder can be written; set TMPDIR to one that can") from None
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_SOCKET_FOLDER:
        return
    short = [folder for folder in ("/tmp", "/var/tmp") if os.access(folder, os.W_OK | os.X_OK)]
    if not short:
        raise UserError(f"TMPDIR is too long for a socket: {tempfile.gettempdir()}; name a shorter folder")
    tempfile.tempdir = short[0]
    try:
        get_temp_dir()  # made once, and removed when this process exits
    finally:
        tempfile.tempdir = chosen
