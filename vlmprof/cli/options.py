"""Command-line options for every field of a specification, made from the specification's own tables."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from vlmprof.fields import AXES, SETTINGS, Field, option


def spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each axis and setting.

    What the user wrote reaches the command as `overrides`, from field name to words; the rest is absent.
    """
    own = inspect.signature(command, eval_str=True)
    added = {f.name: _parameter(f, f.name in AXES or f.many) for f in (*AXES.values(), *SETTINGS.values())}

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        overrides = {name: values.pop(name) for name in added}
        given = {name: value for name, value in overrides.items() if value not in (None, [], ())}
        command(overrides=given, **values)

    kept = [parameter for name, parameter in own.parameters.items() if name != "overrides"]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *added.values())]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    return wrapper


def _parameter(field: Field, many: bool) -> inspect.Parameter:
    kind: Any = list[str] | None if many else str | None
    names = [option(field.name)]
    if isinstance(field.default, bool):
        kind, names = bool | None, [f"{option(field.name)}/--no-{field.name.replace('_', '-')}"]
    hint = f"{field.help} Repeatable." if many else field.help
    panel = "Axes" if field.name in AXES else "Fixed for every cell"
    annotation: Any = Annotated[
        kind, typer.Option(*names, help=hint, rich_help_panel=panel, show_default=False)
    ]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
