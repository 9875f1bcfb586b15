"""Where the package's log goes: nowhere, unless a program asks. One logger per module, below `vlmprof`."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

PACKAGE = logging.getLogger("vlmprof")


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to `sys.stderr` as it is at the moment: a live display replaces it while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: int) -> None:
    """Show records of the package from `level` on standard error, with time and module."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    PACKAGE.addHandler(handler)
    PACKAGE.setLevel(level)
