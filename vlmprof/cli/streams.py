"""Standard output and error that fail in one line: on a full disk, and when their reader has gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from vlmprof.errors import UserError


class OutputError(UserError):
    """Standard output cannot be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write standard output: {cause.strerror or cause}")
        self.reader_has_gone = isinstance(cause, BrokenPipeError)


def guard_streams() -> None:
    """Make failed writes to standard output raise `OutputError`, and those to standard error have no effect.

    A stream that the caller closed, as with `>&-`, is replaced by the null device.
    """
    sys.stdout, sys.stderr = _Output(_open(sys.stdout)), _Errors(_open(sys.stderr))  # type: ignore[assignment]


def _open(stream: TextIO | None) -> TextIO:
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream


class _Stream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(_Stream):
    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._failed(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> OutputError:
        with suppress(OSError, ValueError):
            # Python writes what is left in the buffer when it exits, and would complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return OutputError(error)


class _Errors(_Stream):
    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
