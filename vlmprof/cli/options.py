"""Command-line options that several commands share; those of a specification come from `fields`."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from vlmprof.fields import AXES, SETTINGS, Field, option

SpecOption = Annotated[str, typer.Argument(help="A TOML file or a shipped specification.")]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option("--format", help="png, pdf or svg (default: png and pdf). Repeatable."),
]
WidthOption = Annotated[str, typer.Option("--width", help="Width: one-column or two-column.")]


def typed() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["vlmprof", *sys.argv[1:]])


def spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each axis and setting to a command.

    The command receives the options that were used as `overrides`, a mapping from field name to arguments.
    """
    own = inspect.signature(command, eval_str=True)
    added = {f.name: _parameter(f, f.name in AXES or f.many) for f in (*AXES.values(), *SETTINGS.values())}

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        overrides = {name: values.pop(name) for name in added}
        given = {name: value for name, value in overrides.items() if value not in (None, [], ())}
        command(overrides=given, **values)

    kept = [parameter for name, parameter in own.parameters.items() if name != "overrides"]
    return with_parameters(wrapper, (*kept, *added.values()))


def with_parameters(
    wrapper: Callable[..., None], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """Let Typer see these parameters instead of those of a wrapper and of the command in it."""
    named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    seen: Any = wrapper
    seen.__signature__ = inspect.Signature(named)
    seen.__annotations__ = {p.name: p.annotation for p in named}
    del seen.__wrapped__
    return wrapper


def _parameter(field: Field, many: bool) -> inspect.Parameter:
    kind: Any = list[str] | None if many else str | None
    names = [option(field.name)]
    panel = "Axes" if field.name in AXES else "Fixed for every cell"
    metavar: str | None = "VALUE"
    if isinstance(field.default, bool):
        kind, names = bool | None, [f"{option(field.name)}/--no-{field.name.replace('_', '-')}"]
        panel, metavar = "Switches for every cell", None  # narrow terminals have no room for --no-… above
    hint = f"{_described(field)} Repeatable." if many else _described(field)
    annotation: Any = Annotated[
        kind, typer.Option(*names, help=hint, rich_help_panel=panel, show_default=False, metavar=metavar)
    ]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _described(field: Field) -> str:
    """Return a field's help with its choices and its default."""
    default = field.shown_default
    if field.choices and default is None:
        words = (f"{word} (default)" if word == field.default else word for word in field.choices)
        return f"{field.help} One of {', '.join(words)}."
    if isinstance(field.default, bool):
        default = "on" if field.default else "off"
    elif default is None and field.default is not None:
        default = str(field.default)
    text = f"{field.help} One of {', '.join(field.choices)}." if field.choices else field.help
    return text if default is None else f"{text.removesuffix('.')} (default: {default})."


def unwrapped(docstring: str) -> str:
    """Return a help text with each paragraph on one line."""
    return "\n\n".join(text.replace("\n", " ") for text in inspect.cleandoc(docstring).split("\n\n"))
