"""The exception for user mistakes, the warning about run folders, and helpers for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Invalid user input. The command line prints the message and exits with code 2."""


class UnwrittenError(UserError):
    """Rows that could not be written. The command line prints them to standard error, as JSON lines."""

    def __init__(self, message: str, rows: Iterable[str]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)
        """The rows, each as a line of JSON."""


class RunWarning(UserWarning):
    """Something in a run folder is ignored. The command line prints the message and goes on."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return a `UserError` for an unknown name that suggests the closest known names, or lists all."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def one_line(text: str, limit: int = 1000) -> str:
    """Return a message on one line. The middle of a very long one, such as a name, is left out."""
    line = " ".join(text.split("\n")).strip()
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 2 :]}"


def first_line(text: str, limit: int = 300) -> str:
    """Return the first non-empty line of a message, truncated to `limit` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return line if len(line) <= limit else line[: limit - 1] + "…"
