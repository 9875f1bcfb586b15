"""Every backbone by its name, without building it, and without torch.

A name is one of `names()`, `timm:NAME`, `hf:NAME-or-path`, or `module:function` for a backbone in the
user's own file. The last three ask timm, transformers or that file, which load torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vlmprof.backbones import families, families_transformers
from vlmprof.backbones.facts import DEFAULT_LEVEL, BackboneFacts
from vlmprof.backbones.users_module import import_users_module
from vlmprof.errors import UserError, in_one_line, place_in_users_code, unknown

ENTRIES: dict[str, BackboneFacts] = {
    facts.name: facts
    for family in (*families.FAMILIES, *families_transformers.FAMILIES)
    for facts in family()
}
"""Every published variant of every family."""
LIBRARIES = ("hf:", "timm:")
"""Prefixes of names that a library of models is asked for."""


def names() -> list[str]:
    """Every backbone known by name, family by family."""
    return list(ENTRIES)


def facts(name: str, level: int = DEFAULT_LEVEL) -> BackboneFacts:
    """What is known of a backbone, tapped at a feature level (counted from 1; a plain backbone ignores it).

    Raises `UserError` for an unknown name or level, and for a user's module that cannot be imported.

    >>> known = facts("vmamba-t")
    >>> known.stride, known.embed_dim, known.num_tokens(512, 768)
    (16, 384, 1536)
    >>> facts("vit-h").padded(512, 768)  # (height, width) in pixels
    (518, 770)
    """
    if name in ENTRIES:
        return ENTRIES[name].at_level(level)
    if name.startswith("timm:"):
        from vlmprof.backbones import timm_models

        return timm_models.facts_of(name).at_level(level)
    if name.startswith("hf:"):
        from vlmprof.backbones import hub

        return hub.facts_of(name).at_level(level)
    if ":" in name:
        return users_factory(name).facts.at_level(level)  # type: ignore[attr-defined]
    raise unknown("backbone", name, ENTRIES)


def has_feature_levels(name: str) -> bool:
    """Whether a backbone can be tapped at several levels; one that the catalog does not know by name may."""
    return name not in ENTRIES or bool(ENTRIES[name].level_dims)


def users_factory(name: str) -> Any:
    """The decorated function behind `module:function`; the module is the current folder's, or installed.

    Raises `UserError` in one line when there is no such module or function, or it has no facts.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = import_users_module(module_name)
    except UserError:
        raise
    except Exception as problem:
        said = in_one_line(problem)
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
    return factory
