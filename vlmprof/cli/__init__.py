"""The command line: each command parses, calls and shows. Heavy modules are imported on first use."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `vlmprof`. A user mistake prints one line to standard error and exits with code 2."""
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
    """Return the activity to show until the command sets one. A sweep shows none before it starts, so that
    a usage error stands alone."""
    named = [word for word in words[:2] if word.isalpha()]
    if not named or named[0] == "sweep":
        return None
    group = named if named[0] in ("kernels", "backbones") else named[:1]
    return f"vlmprof {' '.join(group)}: running"
