"""`run.json`: the specification, the command and the environment of a run, and the schema of its folder.

`axes` names the axes that rows may have, so that other versions can tell them from columns that they do not
know. Folders without a `schema_version` are of version 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmprof.backbones import catalog
from vlmprof.errors import UserError
from vlmprof.fields import AXES, SETTINGS
from vlmprof.files import exists, read_json
from vlmprof.settings import AXIS_NAMES, PARTS

MANIFEST = "run.json"

SCHEMA_VERSION = 2
"""Raised when rows or `run.json` change in a way that older versions cannot ignore."""

POLICY = {"run_after_oom", "cell_timeout_s", "cool_down_s", "order", "profile"}
"""Settings that may change on resuming: they decide which cells and passes run, not what the numbers mean."""


def new_manifest(
    spec: Mapping[str, Any],
    command: str,
    environment: Mapping[str, Any],
    backbones: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """Return the content of `run.json` for a new run; `backbones` has (family, size) of users' backbones."""
    schema = {"schema_version": SCHEMA_VERSION, "axes": list(AXIS_NAMES)}
    named = {name: {"family": family, "size": size} for name, (family, size) in (backbones or {}).items()}
    return {**schema, "spec": spec, "command": command, "environment": environment, "backbones": named}


def declare_backbones(manifest: Mapping[str, Any]) -> None:
    """Let legends and tables show the users' backbones of a run by their family and size."""
    found = manifest.get("backbones")
    for name, facts in found.items() if isinstance(found, dict) else ():
        if isinstance(facts, dict):
            catalog.declare(name, str(facts.get("family", "")), str(facts.get("size", "")))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read `run.json` of a folder; None if there is none. Raises `UserError` if it cannot be read."""
    try:
        if not exists(path / MANIFEST):
            return None
        manifest = read_json(path / MANIFEST)
        _check_objects(manifest, "", "spec", "environment")
        _check_objects(manifest.get("spec", {}), "spec.", "axes", "fixed")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path / MANIFEST} cannot be read: {why}") from None
    return manifest


def _check_objects(value: Any, prefix: str, *sections: str) -> None:
    """Raise `ValueError` unless `value`, and each of these sections that it has, is an object."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    for section in sections:
        if not isinstance(value.get(section, {}), dict):
            raise ValueError(f"{prefix}{section} is {json.dumps(value[section])[:80]}, not an object")


DECISIVE = ("vlmprof", "commit", "python", "packages", "cuda_version", "gpus", "cpu")
"""Facts of an environment that may change what is measured; others, such as the load, change all the time."""


def resumed(path: Path, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of the run folder `path` when a sweep goes on in it.

    Only values added to axes and the schema are updated. If software or hardware differ from before,
    `continued` lists the command and the new environment too, because the rows that follow are from there.
    Raises `UserError` if the folder belongs to another specification or device, or to a newer version.
    """
    _refuse_other(path, existing, wanted)
    renewed = ("schema_version", "axes", "backbones")
    goes_on = {**existing, **{key: wanted[key] for key in renewed if key in wanted}}
    if _section(existing, "axes") != _section(wanted, "axes"):
        goes_on |= {"spec": wanted["spec"], "command": wanted["command"]}
    before = _continuations(existing)
    latest = before[-1] if before else existing
    if _decisive(latest) != _decisive(wanted):
        renewed_by = {"command": wanted["command"], "environment": wanted["environment"]}
        goes_on["continued"] = [*before, renewed_by]
    return goes_on


def environments(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the environments that a run was measured in: that of its start, then those that continued it."""
    return [p["environment"] for p in (manifest, *_continuations(manifest)) if "environment" in p]


@dataclass(frozen=True)
class Difference:
    """A setting, or a fact of the environment, that two runs do not share."""

    name: str
    a: Any
    b: Any


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Return the differences between two runs: in settings for every cell, and in facts of the environment
    that both recorded and that may change results. Cells and commits are not compared."""
    written = all("fixed" in manifest.get("spec", {}) for manifest in (a, b))
    fixed_a, fixed_b = (_section(manifest, "fixed") if written else {} for manifest in (a, b))
    facts_a, facts_b = _facts(a), _facts(b)
    pairs = [(name, fixed_a.get(name), fixed_b.get(name)) for name in fixed_a if name not in POLICY]
    pairs += [(name, facts_a[name], facts_b[name]) for name in facts_a if name in facts_b]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of the environment in which a run began, with package versions by package name."""
    environment = manifest.get("environment", {})
    names = ("device_name", "cpu", "python", "cuda_version", "torch_threads")
    packages = environment.get("packages")
    facts = {name: environment[name] for name in names if name in environment}
    return facts | (packages if isinstance(packages, dict) else {})


def _continuations(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = manifest.get("continued")
    parts = [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []
    return [part for part in parts if isinstance(part.get("environment"), dict)]


def _decisive(manifest: Mapping[str, Any]) -> dict[str, Any]:
    environment = manifest.get("environment", {})
    return {name: environment.get(name) for name in DECISIVE}


def newer_schema(path: Path | str, manifest: Mapping[str, Any]) -> str | None:
    """Describe that a folder was written by a newer version; None if it was not."""
    version = manifest.get("schema_version", 1)
    if not isinstance(version, int) or version <= SCHEMA_VERSION:
        return None
    return f"{path} was written by a newer vlmprof (schema {version}; this is {SCHEMA_VERSION})"


def declared_axes(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names of the axes of a run, as far as its `run.json` gives them."""
    names = manifest.get("axes")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _refuse_other(path: Path, existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `UserError` if the folder belongs to another sweep, listing every difference."""
    if newer := newer_schema(path, existing):
        raise UserError(f"{newer}; update vlmprof, or choose another with --out")
    differing = [
        f"{section}.{key} is {json.dumps(old.get(key))} there but {json.dumps(new.get(key))} here"
        for section in ("axes", "fixed")
        for old, new in [(_section(existing, section), _section(wanted, section))]
        for key in sorted((old.keys() | new.keys()) - POLICY)
        if old.get(key) != new.get(key) and not (section == "axes" and _has_all(new.get(key), old.get(key)))
    ]
    devices = [manifest.get("environment", {}).get("device_name") for manifest in (existing, wanted)]
    if devices[0] != devices[1]:
        differing.append(f"device is {devices[0]} there but {devices[1]} here")
    if differing:
        raise UserError(f"{path} belongs to another sweep: {'; '.join(differing)}; choose another with --out")


def _has_all(values: Any, earlier: Any) -> bool:
    return isinstance(values, list) and isinstance(earlier, list) and all(v in values for v in earlier)


def _section(manifest: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return `axes` or `fixed` of a manifest. What was added since it was written has its default."""
    written: dict[str, Any] = manifest.get("spec", {}).get(section, {})
    if section == "axes":
        inapplicable = PARTS if "vlm" in written else ("vlm",)
        defaults = {axis.name: [axis.default] for axis in AXES.values() if axis.default is not None}
        return {name: value for name, value in defaults.items() if name not in inapplicable} | written
    return {setting.attribute: setting.default for setting in SETTINGS.values()} | written
