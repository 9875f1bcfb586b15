"""The specification of a sweep: TOML plus command-line overrides, validated without torch.

[axes]                                   [fixed]
backbone = ["vit-t", "vmamba-t"]         warm_up = 100
resolution = [224, "1333x800"]           iterations = 100
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vlmprof import files
from vlmprof.errors import UserError, check_known, joined, unknown
from vlmprof.fields import AXES, SETTINGS, option
from vlmprof.records import STAGES
from vlmprof.settings import PARTS, AxisValues, Settings

LEAST_S = 0.5
"""Default shortest sampling time of a cell: less than the start of its process takes."""


@dataclass(frozen=True)
class SweepSpec:
    """A validated specification: values for every axis and every setting."""

    name: str
    axes: AxisValues
    settings: Settings

    def to_json(self) -> dict[str, Any]:
        """Return the specification as stored in `run.json`, with units in the names."""
        axes = {key: [*values] for key, values in self.axes.named.items()}
        return {"name": self.name, "axes": axes, "fixed": self.settings.to_json()}

    def digest(self) -> str:
        """Return eight hexadecimal digits that depend on every axis and setting, but not on the name."""
        return digest({key: part for key, part in self.to_json().items() if key != "name"})


def digest(value: Any) -> str:
    """Return eight hexadecimal digits for a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def build_spec(document: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> SweepSpec:
    """Build a validated `SweepSpec` from a parsed TOML document and overrides by field name.

    Raises `UserError` for unknown keys, invalid values, or an axis with neither a value nor a default.
    """
    check_known("section", document, ("name", "axes", "fixed"))
    tables: dict[str, dict[str, Any]] = {}
    for section, known in (("axes", AXES), ("fixed", SETTINGS)):
        table = document.get(section, {})
        if not isinstance(table, Mapping):
            raise UserError(f"{section} must be a table: [{section}]")
        check_known(f"key in [{section}]", table, known)
        given = {k: v for k, v in overrides.items() if k in known}
        tables[section] = {**_making_room(table, overrides), **given}

    is_hf_vlm = bool(tables["axes"].get("vlm"))
    chosen: dict[str, Any] = {}
    for axis in AXES.values():
        if axis.name in PARTS if is_hf_vlm else axis.name == "vlm":
            continue
        values = _listed(tables["axes"].get(axis.name, axis.default))
        if not values:
            raise UserError(f"no {axis.name} given: set at least one in [axes] or with {option(axis.name)}")
        chosen[axis.name] = tuple(dict.fromkeys(axis.read(value) for value in values))
    axes = AxisValues(**chosen)
    read: dict[str, Any] = {}
    for setting in SETTINGS.values():
        value = tables["fixed"].get(setting.name, setting.default)
        many = setting.many
        read[setting.attribute] = tuple(map(setting.read, _listed(value))) if many else setting.read(value)
    read["stages"] = _in_order(read["stages"])
    settings = Settings(**{**read, **_protocol(read)})
    _check_together(axes, settings)
    if is_hf_vlm:
        _check_hf_vlm(tables["axes"], axes, settings)
    return SweepSpec(name=_name(document.get("name", name)), axes=axes, settings=settings)


def load_spec(source: str, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Load a specification from a TOML file, or a shipped one by name.

    Raises `UserError` if there is no such file or name, or if the contents are invalid.
    """
    name, text = _read(source)
    _check_alone(overrides or {})
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{source} is not valid TOML: nested too deeply") from None
    except ValueError as error:  # a long integer is one that is not a TOMLDecodeError
        raise UserError(f"{source} is not valid TOML: {error}") from None
    try:
        return build_spec(document, overrides or {}, name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _check_alone(overrides: Mapping[str, Any]) -> None:
    """Raise `UserError` for an invalid override, whose message must not name the file: it is not in there."""
    fields = AXES | SETTINGS
    for name, value in overrides.items():
        for part in _listed(value):
            fields[name].read(part)


def shipped_specs() -> list[str]:
    """Return the names of the specifications shipped with the package."""
    root = resources.files("vlmprof.sweeps")
    names = [entry.name for entry in root.iterdir()]
    nested = [f"{n}/{e.name}" for n in names if "." not in n for e in _entries(root.joinpath(n))]
    return sorted(n.removesuffix(".toml") for n in [*names, *nested] if n.endswith(".toml"))


def _name(value: Any) -> str:
    """Validate the name of a sweep, which names its folder under `runs/`."""
    if isinstance(value, str) and re.fullmatch(r"[^/\\\x00-\x1f]{1,100}", value) and value.strip(". "):
        return value
    raise UserError(f"name: {value!r} cannot name a folder; write letters, digits, - and _")


_SIZES = (("tiling", "none", ("tile_size", "max_tiles")), ("frames", "1", ("frame_batch",)))
"""Axes, the value that turns them off, and the fields that then have no meaning."""


def _making_room(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's fields without those that command-line options override: `vlm` overrides its parts, a
    backbone `vlm`, an iteration count an adaptive stopping rule, and no tiles or videos their sizes."""
    replaced = PARTS if "vlm" in given else ("vlm",) if "backbone" in given else ()
    if "warm_up" in given or "iterations" in given:
        replaced = (*replaced, "sampling")
    for axis, off, sizes in _SIZES:
        values = given.get(axis, ())
        if {str(value) for value in (values if isinstance(values, list | tuple) else [values])} == {off}:
            replaced = (*replaced, *sizes)
    return {name: values for name, values in table.items() if name not in replaced}


def _check_together(axes: AxisValues, settings: Settings) -> None:
    """Raise `UserError` for values that are valid by themselves but not with others."""
    if settings.autocast and "float32" in axes.dtype:
        raise UserError("autocast: supports bfloat16 and float16 only; remove float32 from dtype")
    if {*axes.tiling} - {"none"}:
        if settings.fit != "resize":
            raise UserError("fit: tiling decides how photos are fitted; leave out fit")
    else:
        for name in ("tile_size", "max_tiles"):
            if {*getattr(axes, name)} - {"auto"}:
                raise UserError(f"{name}: there are no tiles; add tiling anyres or dynamic")
    if settings.frame_batch is not None and not {*axes.frames} - {1}:
        raise UserError("frame_batch: there are no videos; add frames, or leave it out")
    if {*axes.prefill_chunk} - {"none"} and "prefill" not in settings.stages:
        raise UserError("prefill_chunk: there is no prefill; add it to stages")


def _check_hf_vlm(named: Mapping[str, Any], axes: AxisValues, settings: Settings) -> None:
    """Raise `UserError` for settings that a VLM from transformers, timed with hooks, does not support."""
    parts = [part for part in PARTS if part in named]
    for name in ("frames", "prefill_chunk"):
        if name in parts:
            raise UserError(f"{name}: a vlm is timed in one forward pass on photos; leave out {name}")
    if parts:
        own = "has its own backbone, connector, llm and tiles, each run as it is"
        raise UserError(f"vlm: {own}; leave out {joined(parts)}")
    if axes.mode != ("eager",):
        raise UserError("mode: a vlm is timed with hooks on its parts, which work only in mode eager")
    if not {*STAGES[1:4]} <= {*settings.stages}:
        raise UserError("stages: a vlm runs vision, connector and prefill in one call; name all three")
    if settings.share_llm:
        raise UserError("share_llm: the language model of a vlm cannot be measured separately")
    if settings.autocast:
        raise UserError("autocast: all parts of a vlm have the same dtype")
    if settings.study_checkpoint:
        raise UserError("study_checkpoint: its connector and LLM cannot be loaded into a vlm")
    if settings.weights not in (None, "pretrained"):
        raise UserError("weights: a vlm supports only pretrained, which loads the weights next to its config")


def _protocol(read: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the sampling fields. An iteration count without a sampling rule means fixed sampling.

    Raises `UserError` if `least` exceeds `budget`.
    """
    warm_up, iterations = read["warm_up"], read["iterations"]
    counted = warm_up is not None or iterations is not None
    sampling = read["sampling"] or ("fixed" if counted else "adaptive")
    if sampling == "fixed":
        warm_up, iterations = (3 if warm_up is None else warm_up), iterations or 10
    least, budget = read["least_s"], read["budget_s"]
    if least is not None and least > budget:
        raise UserError(f"least: {least:g} s is longer than the budget of {budget:g} s")
    least = min(LEAST_S, budget) if least is None else least
    return {"sampling": sampling, "warm_up": warm_up, "iterations": iterations, "least_s": least}


def _in_order(stages: Sequence[str]) -> tuple[str, ...]:
    """Sort stages into running order. Each consumes the output of the previous one, so gaps are refused."""
    ordered = tuple(stage for stage in STAGES if stage in stages)
    first = STAGES.index(ordered[0]) if ordered else len(STAGES)
    if first > STAGES.index("vision") or ordered != STAGES[first : first + len(ordered)]:
        raise UserError("stages: must be consecutive and start with preprocess or vision")
    return ordered


def _entries(folder: Any) -> Sequence[Any]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _read(source: str) -> tuple[str, str]:
    path = Path(source)
    if files.exists(path) and not files.is_folder(path):
        try:
            return path.stem, files.read_text(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    shipped = source.removesuffix(".toml")
    if shipped not in shipped_specs():
        if files.is_folder(path):
            known = ", ".join(shipped_specs())
            raise UserError(f"{source} is a folder; pass a TOML file, or a shipped specification: {known}")
        raise unknown("specification (no such file either)", source, shipped_specs())
    text = resources.files("vlmprof.sweeps").joinpath(f"{shipped}.toml").read_text(encoding="utf-8")
    return shipped.replace("/", "-"), text
