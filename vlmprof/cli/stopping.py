"""Clean exit of commands on SIGINT, SIGTERM and SIGHUP: one line, with all results in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vlmprof.errors import UnwrittenError

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up on"}
PATIENCE_S = 0.5
"""Time after which a `Stopped` that a library has swallowed is raised again."""


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

    Libraries that are interrupted, such as numpy while it is imported, may swallow it or fail in another way:
    it is then raised again, or instead. A signal that was ignored before stays ignored, as under `nohup`.
    """
    known = [getattr(signal, name) for name in WORDS if hasattr(signal, name)]
    before = {signum: signal.getsignal(signum) for signum in known}
    heeded = [signum for signum in known if before[signum] != signal.SIG_IGN]
    received: list[Stopped] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        # a second, impatient signal must not interrupt the clean-up
        while heeded:
            signal.signal(heeded.pop(), signal.SIG_IGN)
        received.append(Stopped(signum))
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, insist)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)
        raise received[0]

    def insist(signum: int, frame: FrameType | None) -> None:
        if not _is_handled(received[0]):
            raise received[0]

    for signum in heeded:
        signal.signal(signum, stop)
    try:
        yield
    except (Stopped, UnwrittenError):
        raise
    except BaseException:
        if received:
            raise received[0] from None
        raise
    finally:
        if received and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for signum in heeded:
            signal.signal(signum, before[signum])


def _is_handled(stop: Stopped) -> bool:
    """Return whether the running code handles `stop`, as clean-up does."""
    error = sys.exc_info()[1]
    while error is not None and error is not stop:
        error = error.__context__
    return error is stop
