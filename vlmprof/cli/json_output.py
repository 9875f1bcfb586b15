"""`--json`: one object on standard output, everything for people on standard error.

A command shows its results through `show_sheet` (in `cli.tables`), `tell` and `tell_files`, which print them
and, with `--json`, also add them to the object. If the command fails with a user mistake or a signal, the
object is not printed, and standard output stays empty.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmprof.cli.options import with_parameters
from vlmprof.version import __version__

SCHEMA = 1
"""Raised when a key of the object changes its meaning or goes away."""


@dataclass
class JsonOutput:
    """The object that a command prints with `--json`."""

    command: str
    schema: int = SCHEMA
    vlmprof: str = __version__
    exit_code: int = 0
    messages: list[str] = field(default_factory=list)
    """Sentences about the results, as printed for people."""
    files: list[str] = field(default_factory=list)
    """Paths of the files that the command wrote."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows by table. Names of columns carry their units: `gpu_vision_s`, `peak_allocated_bytes`."""


_open: list[JsonOutput] = []


def json_wanted() -> bool:
    """Return whether the command was called with `--json`."""
    return bool(_open)


def add_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a table of the object of `--json`; without that option, do nothing."""
    if _open:
        _open[-1].tables.setdefault(name, []).extend(map(_plain, rows))


def add_message(sentence: str) -> None:
    """Add a sentence to the object of `--json` without printing it."""
    if _open:
        _open[-1].messages.append(sentence)


def tell(sentence: str) -> None:
    """Print a sentence about the results."""
    from vlmprof.render.tables.terminal import console

    console().print(sentence, markup=False)
    add_message(sentence)


def tell_files(paths: Iterable[Path]) -> None:
    """Print the paths of the files that were written, one per line."""
    for path in paths:
        print(path)
        if _open:
            _open[-1].files.append(str(path))


def json_option(name: str, tables: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--json` to the command `name`, whose object has these `tables`."""
    words = (
        "Print one JSON object on standard output, with schema, vlmprof, command, exit_code, messages, files "
        f"and tables ({tables}); everything else goes to standard error."
    )
    option = inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help=words)],
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def wrapper(*, as_json: bool, **values: Any) -> None:
            if as_json:
                with _one_object(name):
                    command(**values)
            else:
                command(**values)

        return with_parameters(wrapper, (*own, option))

    return decorate


@contextmanager
def _one_object(command: str) -> Iterator[None]:
    """Collect the results of the command in an object, and print it at the end."""
    output = JsonOutput(command)
    _open.append(output)
    try:
        with _stdout_to_stderr():
            yield
    except typer.Exit as ended:
        output.exit_code = ended.exit_code
    finally:
        _open.remove(output)
    print(json.dumps(asdict(output), allow_nan=False, indent=1))
    if output.exit_code:
        raise typer.Exit(output.exit_code)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect standard output to standard error, also for libraries written in C and child processes."""
    sys.stdout.flush()
    try:
        out, errors = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # not a file, as in a test
        with redirect_stdout(sys.stderr):
            yield
        return
    kept = os.dup(out)
    os.dup2(errors, out)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, out)
        os.close(kept)


def _plain(value: Any) -> Any:
    """Convert a value to JSON's own types. NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if hasattr(value, "item") and not isinstance(value, Sequence):  # a scalar of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)
