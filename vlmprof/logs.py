"""Logging. The package has one logger per module below `vlmprof`, silent unless a program enables them."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from vlmprof.errors import RunWarning

PACKAGE = logging.getLogger("vlmprof")
_PACKAGE_FOLDER = Path(__file__).absolute().parent


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


@contextmanager
def only_our_lines() -> Iterator[None]:
    """Print the package's own warnings, each in a line like those of errors and a `RunWarning` only once.

    Those of other packages, and their log records below ERROR, appear only with `log_to_stderr`.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():

        def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
            if issubclass(category, RunWarning) or _PACKAGE_FOLDER in Path(filename).absolute().parents:
                print(f"vlmprof: {message}", file=sys.stderr)
            else:
                PACKAGE.info("%s: %s", category.__name__, message)

        warnings.showwarning = show
        warnings.simplefilter("default", RunWarning)
        try:
            yield
        finally:
            logging.disable(disabled)
