"""The command line: each command parses, calls and shows. Heavy modules are imported on first use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmprof.cli.stopping import Stopped, stoppable


def main() -> None:
    """Run the `vlmprof` command line.

    A user mistake, or an error in a user's own module, prints one line to standard error and exits with code
    2. A signal to stop prints one line and exits with 128 plus its number: 130 after Ctrl-C.
    """
    from vlmprof.errors import UserError, in_one_line, place_in_users_code

    try:
        with stoppable():
            _run(sys.argv[1:])
    except UserError as error:
        print(f"vlmprof: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as problem:
        if not place_in_users_code(problem):
            raise
        print(f"vlmprof: {in_one_line(problem)}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"vlmprof: {stop.line()}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None


def _run(words: list[str]) -> None:
    from vlmprof.activity import narrated
    from vlmprof.cli.app import app
    from vlmprof.cli.encoding import print_any_text

    print_any_text()
    with narrated(_starting(words)), _warnings_in_a_line():
        app()


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print each `RunWarning` once, as a line like those of errors."""
    from vlmprof.errors import RunWarning

    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, RunWarning):
                print(f"vlmprof: {message}", file=sys.stderr)
            else:
                shown(message, category, *rest, **named)

        warnings.showwarning = show
        warnings.simplefilter("default", RunWarning)
        yield


def _starting(words: list[str]) -> str | None:
    """Return the activity to show until the command sets one; None without a command."""
    named = [word for word in words[:2] if word.isalpha()]
    if not named:
        return None
    group = named if named[0] in ("kernels", "backbones") else named[:1]
    return f"vlmprof {' '.join(group)}: running"
