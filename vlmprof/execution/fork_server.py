"""Preloading for fork servers: they import libraries once, so that their forks start in milliseconds.

Code here must not touch an accelerator or start threads, because neither survives a fork.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import signal
import sys
from collections.abc import Iterable

GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) if hasattr(signal, "pthread_sigmask") else ()
"""Ctrl-C, a closed terminal and tools such as `timeout` reach the whole process group; the command decides
what becomes of forks. If a server ended, the command would start another one before it could stop."""
LEFT_OUT = ("torchao",)
"""Packages that transformers imports if they are installed, and that touch the accelerator when imported.
Forks import them when they need them."""


def import_once(modules: Iterable[str]) -> None:
    """Import `modules` and exclude their objects from all later garbage collections."""
    for name in LEFT_OUT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # as if it were not installed
    # no collections while the libraries load: they take a fifth of the time and find nothing
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    for name in LEFT_OUT:
        if sys.modules[name] is None:
            del sys.modules[name]
    # collections in a fork then do not copy their pages
    gc.freeze()
    gc.enable()
    # libraries that check for leaks at exit would report frozen objects
    atexit.register(gc.unfreeze)
    for signum in GROUP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    if GROUP_SIGNALS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def accept_termination() -> None:
    """Let SIGTERM end this fork again, and the programs it starts, such as compilers."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if GROUP_SIGNALS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
