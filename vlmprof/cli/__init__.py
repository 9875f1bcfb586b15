"""The command line: each command parses, calls and shows. Heavy modules are imported on first use."""

from __future__ import annotations

import errno
import os
import sys

from vlmprof.cli.stopping import Stopped, stoppable

MACHINE_FAULTS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EMFILE, errno.ENFILE,
)  # fmt: skip
"""Errors of the machine, such as a full or read-only disk, that a command does not explain itself."""

BROKEN_PIPE = 141
"""The exit code after SIGPIPE: the reader of standard output has gone."""


def main() -> None:
    """Run the `vlmprof` command line.

    A user mistake, or an error in a user's own module, prints one line to standard error and exits with code
    2. A signal to stop prints one line and exits with 128 plus its number: 130 after Ctrl-C.
    """
    from vlmprof.cli.encoding import print_any_text
    from vlmprof.cli.streams import OutputError, guard_streams
    from vlmprof.errors import UserError, error_line, place_in_users_code

    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]  # some set it where they know no width, and rich would print nothing
    print_any_text()
    guard_streams()
    try:
        with stoppable():
            code = _run(sys.argv[1:])
            sys.stdout.flush()
    except OutputError as error:
        code = BROKEN_PIPE if error.reader_has_gone else _complain(error)
    except UserError as error:
        code = _complain(error)
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        code = _complain(UserError(f"{error.strerror}: {error.filename or 'a file that the command needs'}"))
    except Exception as problem:
        if not place_in_users_code(problem):
            raise
        code = _complain(UserError(error_line(problem)))
    except Stopped as stop:
        print(f"vlmprof: {stop.line()}", file=sys.stderr)
        code = stop.exit_code
    raise SystemExit(code)


def _complain(error: Exception) -> int:
    from vlmprof.errors import UnwrittenError, one_line

    for row in error.rows if isinstance(error, UnwrittenError) else ():
        print(row, file=sys.stderr)
    print(f"vlmprof: {one_line(str(error))}", file=sys.stderr)
    return 2


def _run(words: list[str]) -> int:
    """Run a command and return its exit code. A mistake in the use of options is a `UserError`."""
    from vlmprof.activity import narrated
    from vlmprof.cli.app import app
    from vlmprof.cli.streams import only_our_lines
    from vlmprof.errors import UserError

    if sys.platform == "win32":
        raise UserError("Windows is not supported; run vlmprof in the Windows Subsystem for Linux (WSL)")
    for before, word in zip(["vlmprof", *words], words, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            # an unset variable of a shell must not turn a limit off
            raise UserError(f"{word} has no value" if word else f"the argument after {before} is empty")
    with narrated(_starting(words)), only_our_lines():
        try:
            return app(prog_name="vlmprof", standalone_mode=False) or 0
        except Exception as error:
            # Typer's own errors, whose class depends on its version
            if not hasattr(error, "format_message"):
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
                return 2
            said = error.format_message().removesuffix(".")
            command = getattr(getattr(error, "ctx", None), "command_path", "vlmprof")
            raise UserError(f"{said[:1].lower()}{said[1:]}; see {command} --help") from None


def _starting(words: list[str]) -> str | None:
    """Return the activity to show until the command sets one; None without a command."""
    named = [word for word in words[:2] if word.isalpha()]
    if not named:
        return None
    group = named if named[0] == "kernels" else named[:1]
    return f"vlmprof {' '.join(group)}: running"
