"""Calls in fresh processes that start fast, are watched, and end with their parent.

A fork server imports the libraries once (`preload`) and never touches a device. Each call runs in a fork of
it, which starts within milliseconds and without an initialized accelerator.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import heap
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vlmprof.errors import UserError, error_line
from vlmprof.execution.fork_server import accept_termination
from vlmprof.execution.starting import context, fork_server, has_died, start
from vlmprof.execution.status_board import StatusBoard
from vlmprof.logs import PACKAGE, log_to_stderr, silence_others

logger = logging.getLogger(__name__)

POLL_S = 0.2
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
    start(process)
    server = fork_server()
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
            if has_died(server, process.exitcode):
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
