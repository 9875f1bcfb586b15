"""Standard output and error: in one line when they fail, and with no lines of other packages."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import vlmprof
from vlmprof.errors import RunWarning, UserError
from vlmprof.logs import PACKAGE

_PACKAGE = Path(vlmprof.__file__).absolute().parent


class OutputError(UserError):
    """Standard output cannot be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write standard output: {cause.strerror or cause}")
        self.reader_has_gone = isinstance(cause, BrokenPipeError)


def guard_streams() -> None:
    """Make failed writes to standard output raise `OutputError`, and those to standard error have no effect.

    A stream that the caller closed, as with `>&-`, is replaced by the null device.
    """
    out, errors = _open(sys.stdout), _open(sys.stderr)

    def give_up(error: OSError) -> None:
        with suppress(OSError, ValueError):
            # Python writes what is left in the buffer when it exits, and would complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        raise OutputError(error) from None

    sys.stdout, sys.stderr = _Guarded(out, give_up), _Guarded(errors, lambda error: None)  # type: ignore[assignment]


def _open(stream: TextIO | None) -> TextIO:
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream


class _Guarded:
    """A stream whose failures are given to a function."""

    def __init__(self, stream: TextIO, failed: Callable[[OSError], None]) -> None:
        self._stream, self._failed = stream, failed

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def only_our_lines() -> Iterator[None]:
    """Print the package's own warnings, each in a line like those of errors and a `RunWarning` only once.

    Those of other packages, and their log records below ERROR, appear only with `log_to_stderr`.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():

        def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
            if issubclass(category, RunWarning) or _PACKAGE in Path(filename).absolute().parents:
                print(f"vlmprof: {message}", file=sys.stderr)
            else:
                PACKAGE.info("%s: %s", category.__name__, message)

        warnings.showwarning = show
        warnings.simplefilter("default", RunWarning)
        try:
            yield
        finally:
            logging.disable(disabled)
