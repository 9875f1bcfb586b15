"""The command line: each command parses, calls and shows. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `vlmprof`. A user's mistake is one line on standard error and exit code 2."""
    from vlmprof.cli.app import app
    from vlmprof.errors import UserError

    try:
        app()
    except UserError as error:
        print(f"vlmprof: {error}", file=sys.stderr)
        raise SystemExit(2) from None
