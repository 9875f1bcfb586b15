"""Calls in fresh processes that start fast, are watched, and end with their parent.

A fork server imports the libraries once (`preload`) and never touches a device. Each call runs in a fork of
it, which starts within milliseconds and without an initialized accelerator.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, heap, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import psutil

from vlmprof.errors import UserError, error_line
from vlmprof.execution.fork_server import GROUP_SIGNALS, accept_termination
from vlmprof.execution.status_board import StatusBoard
from vlmprof.logs import PACKAGE, log_to_stderr, silence_others

logger = logging.getLogger(__name__)

POLL_S = 0.2
PRELOAD = "vlmprof.execution.preload"
"""The module that the fork server imports for cells."""
LONGEST_SOCKET_FOLDER = 70
"""In bytes: a socket's path may have 107, and multiprocessing adds two names to the folder."""
GRACE_S = 5.0
"""Time for a process to exit after it has answered."""


@dataclass(frozen=True)
class Ended:
    """The end of a call in a separate process: a value, the text of an exception, or neither."""

    value: Any = None
    error: str | None = None
    user_error: str | None = None
    exit_code: int | None = None
    """Set if the process died without an answer; a negative signal number if it was killed by a signal."""
    timed_out: bool = False
    server_died: bool = False
    """Whether the fork server died, so that nothing is known of the process."""
    last_words: str = ""
    """The end of its output."""


class StoppedError(Exception):
    """A call in a separate process was stopped before it had a result."""


@cache
def context() -> Any:
    """Return the multiprocessing context of all cells: a fork server, if the system supports it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
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


_NO_ANSWER = 255
"""The exit code that multiprocessing reports of a fork whose server died."""


def _start(process: Any) -> None:
    """Start a process. This may be interrupted while the fork server still imports its libraries."""
    if context().get_start_method() == "forkserver":
        _ensure_fork_server()
        server = _fork_server()
        try:
            process.start()
        except (EOFError, ConnectionError):  # it ended before it forked
            if not _has_died(server, _NO_ANSWER):
                raise
            logger.warning("the fork server died, and is started again")
            _ensure_fork_server()
            process.start()
    else:
        with _as_a_fork_server():
            process.start()


def _fork_server() -> psutil.Process | None:
    """Return the running fork server, if the system supports one."""
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    try:
        return psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:
        return None


def _has_died(server: psutil.Process | None, exit_code: int | None) -> bool:
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
            time.sleep(POLL_S / 10)
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


def call_in_process(
    target: str,
    args: tuple[Any, ...],
    *,
    log: Path | None = None,
    timeout_s: float | None = None,
    item_timeout_s: float | None = None,
    on_poll: Callable[[int], None] = lambda pid: None,
    on_item: Callable[[Any], None] = lambda item: None,
    stop: threading.Event | None = None,
) -> Ended:
    """Run a function in a separate process and wait for it.

    The other process ends if this one is interrupted or dies.

    Args:
        target: The function as `module:function`; the module is imported only in the other process.
        args: Its arguments.
        log: Receives the output and log of the process.
        timeout_s: Time after which the process is killed.
        item_timeout_s: Time without an item or a result after which the process is killed.
        on_poll: Called with the process id a few times a second.
        on_item: Called with each item of a generator function, whose return value is the result.
        stop: Ends the process and raises `StoppedError` when set.
    """
    spawn = context()
    answers, answer = spawn.Pipe(duplex=False)
    lifeline, held = spawn.Pipe(duplex=False)
    level = min(PACKAGE.getEffectiveLevel(), logging.WARNING)
    process = spawn.Process(target=_serve, args=(target, args, answer, lifeline, log, level))
    _start(process)
    server = _fork_server()
    logger.debug("process %d started: %s", process.pid, target)
    begun_s = heard_s = time.monotonic()
    answer.close()
    lifeline.close()
    try:
        kind: str = "item"
        content: Any = None
        while kind == "item":
            while not wait([answers, process.sentinel], POLL_S):
                on_poll(process.pid)
                if stop is not None and stop.is_set():
                    raise StoppedError
                now_s = time.monotonic()
                if _later(now_s - begun_s, timeout_s) or _later(now_s - heard_s, item_timeout_s):
                    process.kill()
                    process.join()
                    logger.debug("process %d took too long, killed", process.pid)
                    return Ended(timed_out=True, last_words=_tail(log))
            kind, content = _answer(answers)
            if kind == "item":
                on_item(content)
                heard_s = time.monotonic()
        if kind == "died":
            process.join()
            if _has_died(server, process.exitcode):
                logger.warning("the fork server died")
                return Ended(server_died=True, last_words=_tail(log))
            logger.debug("process %d died, exit code %s", process.pid, process.exitcode)
            return Ended(exit_code=process.exitcode, last_words=_tail(log))
        # other resources of the process, such as compiler workers and locks, are for it to close
        process.join(GRACE_S)
        logger.debug("process %d answered (%s), exit code %s", process.pid, kind, process.exitcode)
        return Ended(**{kind: content}, last_words=_tail(log))
    finally:
        # whatever happened, leave nothing of this call running
        process.kill()
        process.join()
        process.close()
        answers.close()
        held.close()


def _later(elapsed_s: float, timeout_s: float | None) -> bool:
    return timeout_s is not None and elapsed_s > timeout_s


def _answer(answers: Connection) -> tuple[str, Any]:
    """Return the message of the process, or `died` if it ended without one."""
    try:
        return answers.recv() if answers.poll() else ("died", None)
    except (EOFError, OSError):
        return "died", None


def _serve(
    target: str,
    args: tuple[Any, ...],
    answer: Connection,
    lifeline: Connection,
    log: Path | None,
    level: int,
) -> None:
    """Run the call in the other process and send the result."""
    accept_termination()
    if lifeline.poll():  # already closed: the caller was interrupted while this process started
        os._exit(1)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    if log is None:
        silence_others()
    else:
        _print_to(log)
        log_to_stderr(level)
    try:
        module, _, function = target.partition(":")
        value = getattr(importlib.import_module(module), function)(*args)
        if isinstance(value, Generator):
            value = drained(value, lambda item: answer.send(("item", item)))
        reply: tuple[str, Any] = ("value", value)
    except UserError as error:
        if error.__cause__ is not None:
            traceback.print_exc()
        reply = ("user_error", str(error))
    except Exception as error:  # whatever a model raises is the result of its cell and must not end the sweep
        traceback.print_exc()
        reply = ("error", error_line(error))
    with suppress(BrokenPipeError):  # the caller is gone
        answer.send(reply)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def drained(items: Generator[Any, None, Any], send: Callable[[Any], None]) -> Any:
    """Send each item of a generator and return its return value."""
    while True:
        try:
            item = next(items)
        except StopIteration as ended:
            return ended.value
        send(item)


def _end_with_parent(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)


def _print_to(log: Path) -> None:
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)


def _tail(log: Path | None) -> str:
    if log is None:
        return ""
    try:
        return log.read_bytes()[-4000:].decode(errors="replace").strip()
    except OSError:
        return ""


def status_board() -> StatusBoard:
    """Create a status board that can be passed to `call_in_process`."""
    # multiprocessing does without /dev/shm where it is full, but not where it is read-only
    arena: Any = heap.Arena
    arena._dir_candidates = [folder for folder in arena._dir_candidates if os.access(folder, os.W_OK)]
    return StatusBoard.shared(context())
