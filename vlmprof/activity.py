"""Activity messages on standard error while a command prints nothing else.

    with narrated("vlmprof estimate: running"):
        say("loading torch")
        ...
        say("counting vit-t @ 224")

Short commands stay silent. On a terminal, one line is updated every second and erased before the command
prints anything. In a file or a pipe, each activity gets a line, at most every few seconds. Nothing is written
to standard output.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

PATIENCE_S = 0.5
"""Silence after the command starts or prints before the activity is shown."""
LINES_APART_S = 5.0
"""Shortest time between lines for different activities in a file or a pipe."""
AGAIN_S = 60.0
"""Shortest time between lines for the same activity."""
TICK_S = 0.1

_narrators: list[_Narrator] = []


def say(what: str, patience_s: float | None = None) -> None:
    """Set the current activity, in a few words such as `counting vit-t @ 224`.

    Does nothing outside `narrated`. `patience_s` (default: PATIENCE_S) is the silence before it is shown.
    """
    if _narrators:
        _narrators[-1].say(what, patience_s)


@contextmanager
def narrated(what: str | None) -> Iterator[None]:
    """Show the latest `say` message, initially `what`, whenever the command is silent.

    Anything printed to standard output or standard error restarts the wait. None shows nothing at first.
    """
    narrator = _Narrator(sys.stderr, what)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Watched(stream, narrator) for stream in streams)  # type: ignore[assignment]
    _narrators.append(narrator)
    narrator.start()
    try:
        yield
    finally:
        narrator.end()
        _narrators.remove(narrator)
        sys.stdout, sys.stderr = streams


class _Narrator(threading.Thread):
    def __init__(self, stream: TextIO, what: str | None) -> None:
        super().__init__(daemon=True, name="narrator")
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._what = what
        self._patience_s: float | None = None
        self._began = self._heard = time.monotonic()
        self._shown: str | None = None
        """The activity on the last line; None once that line is erased from a terminal."""
        self._shown_at = -AGAIN_S

    def say(self, what: str, patience_s: float | None) -> None:
        with self._lock:
            if what != self._what:
                self._what, self._patience_s, self._began = what, patience_s, time.monotonic()

    def make_way(self) -> None:
        """Erase the line because something else is about to be printed."""
        with self._lock:
            self._heard = time.monotonic()
            self._erase()

    def run(self) -> None:
        while not self._ended.wait(TICK_S):
            with self._lock:
                self._show(time.monotonic())

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._erase()

    def _show(self, now: float) -> None:
        patience_s = PATIENCE_S if self._patience_s is None else self._patience_s
        if self._what is None or now - self._heard < patience_s:
            return
        same_s, other_s = (1.0, TICK_S) if self._live else (AGAIN_S, LINES_APART_S)
        if now - self._shown_at < (same_s if self._what == self._shown else other_s):
            return
        seconds = now - self._began
        words = f"{self._what}, {seconds:.0f} s" if seconds >= 2 else self._what
        if self._live:
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[2K{words[: columns - 1]}")
        else:
            self._stream.write(f"{words}\n")
        self._stream.flush()
        self._shown, self._shown_at = self._what, now

    def _erase(self) -> None:
        if self._live and self._shown is not None:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._shown = None


class _Watched:
    """A standard stream that erases the activity line before each write."""

    def __init__(self, stream: TextIO, narrator: _Narrator) -> None:
        self._stream = stream
        self._narrator = narrator

    def write(self, text: str) -> int:
        self._narrator.make_way()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _forked() -> None:
    # the child has no narrator thread and may have inherited a locked lock
    for narrator in _narrators:
        narrator._lock = threading.RLock()
        narrator._what = narrator._shown = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
