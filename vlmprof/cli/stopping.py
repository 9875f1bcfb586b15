"""A command that is interrupted, terminated or hung up on ends in one line, with what it made in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up on"}


class Stopped(BaseException):
    """A signal, in the main thread. Handlers may add notes for the user, and must raise it again."""

    def __init__(self, signum: int) -> None:
        super().__init__(WORDS[signal.Signals(signum).name])
        self.exit_code = 128 + signum

    def line(self) -> str:
        """What to print: what happened, and what the notes say."""
        return "; ".join((str(self), *getattr(self, "__notes__", ())))


@contextmanager
def stoppable() -> Iterator[None]:
    """While open, the first signal that asks for an end raises `Stopped`; all later ones are ignored.

    A signal that was ignored before stays ignored, as under `nohup`.
    """
    known = [getattr(signal, name) for name in WORDS if hasattr(signal, name)]
    before = {signum: signal.getsignal(signum) for signum in known}
    heeded = [signum for signum in known if before[signum] != signal.SIG_IGN]

    def stop(signum: int, frame: FrameType | None) -> None:
        # an impatient second one must not cut the clean end short
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
