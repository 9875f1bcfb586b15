"""Logging. The package has one logger per module below `vlmprof`, silent unless a program enables them."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

PACKAGE = logging.getLogger("vlmprof")


class _StandardError(logging.StreamHandler[TextIO]):
    """A handler that looks up `sys.stderr` on each write, because live displays replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: int) -> None:
    """Print the package's log records of at least `level` to standard error, with time and module."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    PACKAGE.addHandler(handler)
    PACKAGE.setLevel(level)
