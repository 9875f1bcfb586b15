"""Logging. The package has one logger per module below `vlmprof`, silent unless a program enables them."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

PACKAGE = logging.getLogger("vlmprof")


class _StandardError(logging.StreamHandler[TextIO]):
    """A handler that looks up `sys.stderr` on each write, because live displays replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: int) -> None:
    """Print the package's log records of at least `level` to standard error, with time and module."""
    logging.disable(logging.NOTSET)
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    PACKAGE.addHandler(handler)
    PACKAGE.setLevel(level)


def silence_others() -> None:
    """Drop warnings, and log records below ERROR, in a process that prints to the user's terminal."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
