"""The command line: each command parses, calls and shows. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `vlmprof`. A user's mistake is one line on standard error and exit code 2."""
    from vlmprof.activity import narrated
    from vlmprof.cli.app import app
    from vlmprof.cli.encoding import print_any_text
    from vlmprof.errors import UserError

    print_any_text()
    try:
        with narrated(_starting(sys.argv[1:])):
            app()
    except UserError as error:
        print(f"vlmprof: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _starting(words: list[str]) -> str | None:
    """What to say until the command says more: its name. A sweep says nothing before it has begun, so that
    a mistake is all there is to read."""
    named = [word for word in words[:2] if word.isalpha()]
    if not named or named[0] == "sweep":
        return None
    group = named if named[0] in ("kernels", "backbones") else named[:1]
    return f"vlmprof {' '.join(group)}: running"
