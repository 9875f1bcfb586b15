"""What every fork server does: import libraries once, so that its forks start in milliseconds.

Nothing may touch an accelerator or start threads here, for neither survives a fork.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import signal
from collections.abc import Iterable

GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP) if hasattr(signal, "pthread_sigmask") else ()
"""Ctrl-C and a closed terminal reach the whole process group; the command decides what becomes of forks."""


def import_once(modules: Iterable[str]) -> None:
    """Import `modules` and leave their objects out of all later garbage collections."""
    # no collection goes over the libraries while they load: it takes a fifth of their time and finds nothing
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    # a collection in a fork then copies none of their pages
    gc.freeze()
    gc.enable()
    # frozen objects would be reported as leaks at exit by libraries that look for them
    atexit.register(gc.unfreeze)
    for signum in GROUP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    if GROUP_SIGNALS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
