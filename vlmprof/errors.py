"""The exception for user mistakes, the warning about run folders, and helpers for messages."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PACKAGE = Path(__file__).absolute().parent


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


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an `OSError` into a `UserError`: `cannot write WHAT: No space left on device`."""
    try:
        yield
    except OSError as problem:
        raise UserError(f"cannot write {what}: {problem.strerror or problem}") from None


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return a `UserError` for an unknown name that suggests the closest known names, or lists all."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {joined(near, 'or')}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def joined(words: Sequence[str], last: str = "and") -> str:
    """Join words as in a sentence: `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise the error of `unknown` for the first of the names that is not known."""
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def one_line(text: str, limit: int = 1000) -> str:
    """Return a message on one line. The middle of a very long one, such as a name, is left out."""
    line = " ".join(text.split("\n")).strip()
    return line if len(line) <= limit else f"{line[: limit // 2]} … {line[-limit // 2 :]}"


def error_line(problem: BaseException, limit: int = 300) -> str:
    """Show an exception with its type and, if a user's own code raised it, its file and line."""
    text = problem.msg if isinstance(problem, SyntaxError) else str(problem)
    said = f"{type(problem).__name__}: {first_line(text, limit)}"
    place = place_in_users_code(problem)
    return f"{place}: {said}" if place else said


def place_in_users_code(problem: BaseException) -> str:
    """Return where an exception was raised in a file of the current folder: `mine.py, line 12`; or nothing.

    Installed packages and this one are not the user's own, wherever they are.
    """
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(problem.__traceback__)]
    if isinstance(problem, SyntaxError) and problem.filename:
        places.append((problem.filename, problem.lineno))
    with suppress(OSError):  # the current folder may be gone
        for filename, line in reversed(places):
            if _is_users(filename):
                return f"{Path(filename).absolute().relative_to(Path.cwd()).as_posix()}, line {line}"
    return ""


def _is_users(filename: str) -> bool:
    path = Path(filename)
    inside = path.is_file() and Path.cwd() in path.absolute().parents
    return inside and "site-packages" not in path.parts and _PACKAGE not in path.absolute().parents


def first_line(text: str, limit: int = 300) -> str:
    """Return the first non-empty line of a message, truncated to `limit` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def message_of(problem: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    return first_line(str(problem)) or type(problem).__name__
