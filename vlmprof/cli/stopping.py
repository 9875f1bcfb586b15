"""Clean exit of commands on SIGINT, SIGTERM and SIGHUP: one line, with all results in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up on"}


class Stopped(BaseException):
    """A signal to stop, raised in the main thread. Handlers may add notes and must re-raise it."""

    def __init__(self, signum: int) -> None:
        super().__init__(WORDS[signal.Signals(signum).name])
        self.exit_code = 128 + signum

    def line(self) -> str:
        """Return the line to print: the signal, then the notes."""
        return "; ".join((str(self), *getattr(self, "__notes__", ())))


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on the first signal to stop, and ignore all later ones, while the context is open.

    A signal that was ignored before stays ignored, as under `nohup`.
    """
    known = [getattr(signal, name) for name in WORDS if hasattr(signal, name)]
    before = {signum: signal.getsignal(signum) for signum in known}
    heeded = [signum for signum in known if before[signum] != signal.SIG_IGN]

    def stop(signum: int, frame: FrameType | None) -> None:
        # a second, impatient signal must not interrupt the clean-up
        while heeded:
            signal.signal(heeded.pop(), signal.SIG_IGN)
        raise Stopped(signum)

    for signum in heeded:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in heeded:
            signal.signal(signum, before[signum])
