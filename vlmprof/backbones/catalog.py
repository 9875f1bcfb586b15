"""The facts of every backbone by its name, without building it and without torch.

A name is one of `names()`, `timm:NAME`, `hf:NAME-or-path`, or `module:function` for a backbone in the
user's own file. The last three need timm, transformers or that file, which load torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from vlmprof.activity import say
from vlmprof.backbones import facts_cache, families, families_transformers
from vlmprof.backbones.facts import DEFAULT_LEVEL, BackboneFacts
from vlmprof.backbones.users_module import import_users_module
from vlmprof.errors import UserError, error_line, place_in_users_code, unknown

ENTRIES: dict[str, BackboneFacts] = {
    facts.name: facts
    for family in (*families.FAMILIES, *families_transformers.FAMILIES)
    for facts in family()
}
"""Every published variant of every family."""
_WITH_KERNELS = (".vmamba", ".mambavision")
"""Modules of backbones that are built with a kernel backend."""
LIBRARIES = {"hf": "vlmprof.backbones.hub", "timm": "vlmprof.backbones.timm_models"}
"""Prefixes of names that stand for a library's models, and the modules that know them; these load torch."""


_DECLARED: dict[str, tuple[str, str]] = {}
"""Family and size of users' backbones: what their decorators say, or what a run folder keeps of it."""


def declare(name: str, family: str, size: str) -> None:
    """Let legends and tables show a user's backbone by its family and size."""
    _DECLARED[name] = (family, size)


def declared(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return (family, size) of those `names` that are users' backbones and declare them."""
    return {name: _DECLARED[name] for name in names if name in _DECLARED}


def names() -> list[str]:
    """Every backbone known by name, family by family."""
    return list(ENTRIES)


def facts(name: str, level: int = DEFAULT_LEVEL) -> BackboneFacts:
    """Return the facts of a backbone, tapped at a feature level, counted from 1; a plain one ignores it.

    Raises `UserError` for an unknown name or level, and for a user's module that cannot be imported.

    >>> known = facts("vmamba-t")
    >>> known.stride, known.embed_dim, known.num_tokens(512, 768)
    (16, 384, 1536)
    >>> facts("vit-h").padded(512, 768)  # (height, width) in pixels
    (518, 770)
    """
    if name in ENTRIES:
        return ENTRIES[name].at_level(level)
    if of_a_library(name):
        return _library_facts(name).at_level(level)
    if ":" in name:
        return users_factory(name).facts.at_level(level)  # type: ignore[attr-defined]
    raise unknown("backbone", name, ENTRIES)


def level_number(name: str, level: int | Literal["last"]) -> int:
    """Return the number of a backbone's feature level; for a plain one, `last` is the default."""
    if level != "last":
        return level
    return len(facts(name, 1).level_dims) or DEFAULT_LEVEL


def _library_facts(name: str) -> BackboneFacts:
    known = facts_cache.cached_facts(name)
    if known is None:
        say(f"loading torch to build {name} on the meta device")
        known = importlib.import_module(LIBRARIES[name.partition(":")[0]]).facts_of(name)
        assert isinstance(known, BackboneFacts)
        facts_cache.keep_facts(name, known)
    return known


def of_a_library(name: str) -> bool:
    """Return whether a name is `hf:…` or `timm:…`."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and prefix in LIBRARIES


def axis_applies(axis: str, name: str) -> bool:
    """Return whether an axis changes a backbone.

    `level` and `levels` change only those with feature levels, and `kernel_backend` only those with our
    kernels. Any axis may change a backbone that is not in the catalog.
    """
    if name not in ENTRIES:
        return True
    if axis in ("level", "levels"):
        return bool(ENTRIES[name].level_dims)
    return axis != "kernel_backend" or ENTRIES[name].module.endswith(_WITH_KERNELS)


def users_factory(name: str) -> Any:
    """Return the decorated function `module:function`, from the current folder or an installed package.

    Raises `UserError` in one line when there is no such module or function, or it has no facts.
    """
    module_name, _, function_name = name.partition(":")
    if module_name not in sys.modules:
        say(f"importing {module_name}")
    try:
        module = import_users_module(module_name)
    except UserError:
        raise
    except (Exception, SystemExit) as problem:
        said = error_line(problem)
        if place_in_users_code(problem):
            raise UserError(f"backbone {name!r}: {said}") from problem
        if isinstance(problem, ImportError | ValueError):
            said = str(problem)
        raise UserError(f"backbone {name!r}: cannot import module {module_name!r} ({said})") from problem
    factory = getattr(module, function_name, None)
    if factory is None:
        raise UserError(f"backbone {name!r}: module {module_name!r} has no {function_name!r}")
    if not isinstance(getattr(factory, "facts", None), BackboneFacts):
        raise UserError(
            f"backbone {name!r} has no facts; put @vlmprof.backbones.backbone(embed_dim=..., stride=...) "
            f"above {function_name!r}"
        )
    factory.facts = replace(factory.facts, name=name)
    if factory.facts.size or factory.facts.family != getattr(factory, "__name__", ""):
        declare(name, factory.facts.family, factory.facts.size)
    return factory
