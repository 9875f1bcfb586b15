"""The specification of a sweep: TOML plus command-line overrides, validated, without torch.

    [axes]                                   [fixed]
    backbone = ["vit-t", "vmamba-t"]         warm_up = 100
    resolution = [224, "1333x800"]           iterations = 100

`AXES` and `SETTINGS` are the one place where a field is declared: the TOML keys, the command-line
options and the checks all come from them, so a new axis needs an entry here and a reader of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vlmprof.errors import UserError, unknown
from vlmprof.records import STAGES, AxisValue
from vlmprof.units import parse_bytes, parse_seconds


@dataclass(frozen=True)
class Field:
    """One field of a specification."""

    name: str
    help: str
    parse: Callable[[Any], Any]
    """From a TOML value or a command-line word; raises `UserError`."""
    default: Any = None
    many: bool = False
    """Whether the setting is a list of values. Axes always are."""

    def read(self, value: Any) -> Any:
        """The checked value. Raises `UserError` naming the field."""
        try:
            return self.parse(value)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{value!r} is not a name")
    return value.strip()


def _choice(*known: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in known:
            raise UserError(f"{value!r} is not one of {', '.join(known)}")
        return str(value)

    return parse


def _whole(minimum: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?\d+", str(value)) or int(value) < minimum:
            raise UserError(f"{value!r} is not a whole number of at least {minimum}")
        return int(value)

    return parse


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is not true or false")
    return value


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def parse_resolution(value: Any) -> str:
    """A resolution as it is kept: `512` for a square, else `1333x800`, width by height in pixels."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:[x×]\s*(\d+))?\s*", str(value))
    if match is None or isinstance(value, bool) or "0" in {match[1].lstrip("0") or "0", match[2]}:
        raise UserError(f"{value!r} is not a resolution; write 512, or 1333x800 for width by height")
    width, height = int(match[1]), int(match[2] or match[1])
    return str(width) if width == height else f"{width}x{height}"


def resolution_size(resolution: str) -> tuple[int, int]:
    """(height, width) in pixels of a resolution as it is kept."""
    width, _, height = resolution.partition("x")
    return int(height or width), int(width)


AXES: dict[str, Field] = {
    axis.name: axis
    for axis in (
        Field("backbone", "Vision backbone, such as vmamba-t or vit-b.", _text),
        Field("resolution", "Image size: 512, or 1333x800 for width by height.", parse_resolution),
        Field("llm", "Language model: a known name, a transformers config file, or hf:NAME.", _text),
        Field("connector", "Projection between them: linear, mlp2 or mlp3.", _text, "mlp2"),
        Field("dtype", "Number format of all weights and activations.",
              _choice("float32", "bfloat16", "float16"), "bfloat16"),
        Field("batch_size", "Images per call.", _whole(1), 1),
        Field("levels", "For backbones tapped below their top: run through-tap, or all levels.",
              _choice("through-tap", "all"), "through-tap"),
    )
}  # fmt: skip
"""Every axis of a sweep: varied parameters, each with one or more values."""

SETTINGS: dict[str, Field] = {
    setting.name: setting
    for setting in (
        Field("warm_up", "Discarded iterations before the measured ones.", _whole(0), 3),
        Field("iterations", "Measured iterations.", _whole(1), 10),
        Field("stages", "Stages of one iteration.", _choice(*STAGES[:4]), STAGES[:4], many=True),
        Field("prompt_tokens", "Text tokens beside the visual ones.", _whole(0), 0),
        Field("logits", "Positions to compute logits for.", _choice("all", "last"), "all"),
        Field("seed", "Seed of weights, prompt and generated image.", _whole(0), 0),
        Field("image", "Image file to preprocess; a generated one by default.", _optional(_text)),
        Field("fit", "How an image is brought to the resolution.", _choice("resize", "letterbox"), "resize"),
        Field("device", "auto, cpu, cuda, or another accelerator torch knows.", _text, "auto"),
        Field("memory_limit", "Behave like a device with this much memory, such as 24GiB.",
              _optional(parse_bytes)),
        Field("cell_timeout", "Longest time for one cell, such as 10min.", _optional(parse_seconds)),
        Field("run_after_oom", "Run larger resolutions of a line that ran out of memory.", _flag, False),
    )
}  # fmt: skip
"""What is the same for every cell."""

ALIASES = {"memory_limit": "memory_limit_bytes", "cell_timeout": "cell_timeout_s"}
"""Settings that carry a unit where they are stored."""


@dataclass(frozen=True)
class SweepSpec:
    """A checked specification: values for every axis and every setting."""

    name: str
    axes: Mapping[str, tuple[AxisValue, ...]]
    fixed: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The specification as it is stored in `run.json`, units in the names."""
        fixed = {ALIASES.get(key, key): value for key, value in self.fixed.items()}
        return {
            "name": self.name,
            "axes": {key: list(values) for key, values in self.axes.items()},
            "fixed": {key: list(v) if isinstance(v, tuple) else v for key, v in fixed.items()},
        }

    def digest(self) -> str:
        """Eight hexadecimal digits that change with any axis or setting, not with the name."""
        return digest({key: part for key, part in self.to_json().items() if key != "name"})


def digest(value: Any) -> str:
    """Eight hexadecimal digits of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def build_spec(document: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> SweepSpec:
    """A checked `SweepSpec` from a parsed TOML document and overrides by field name.

    Raises `UserError` for unknown keys, wrong values, or an axis that has neither values nor a default.
    """
    for key in document:
        if key not in ("name", "axes", "fixed"):
            raise unknown("section", key, ("name", "axes", "fixed"))
    tables: dict[str, dict[str, Any]] = {}
    for section, known in (("axes", AXES), ("fixed", SETTINGS)):
        table = document.get(section, {})
        if not isinstance(table, Mapping):
            raise UserError(f"{section} must be a table: [{section}]")
        for key in table:
            if key not in known:
                raise unknown(f"key in [{section}]", key, known)
        tables[section] = {**table, **{k: v for k, v in overrides.items() if k in known}}

    axes = {}
    for axis in AXES.values():
        values = _listed(tables["axes"].get(axis.name, axis.default))
        if not values:
            raise UserError(f"no {axis.name} given: name at least one, in [axes] or with {option(axis.name)}")
        axes[axis.name] = tuple(dict.fromkeys(axis.read(value) for value in values))
    fixed = {}
    for setting in SETTINGS.values():
        value = tables["fixed"].get(setting.name, setting.default)
        if setting.many:
            fixed[setting.name] = tuple(setting.read(item) for item in _listed(value))
        else:
            fixed[setting.name] = setting.read(value)
    fixed["stages"] = _in_order(fixed["stages"])
    return SweepSpec(name=str(document.get("name", name)), axes=axes, fixed=fixed)


def load_spec(source: str, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """The specification in a TOML file, or one shipped with the package by its name.

    Raises `UserError` when there is no such file or name, or its contents are wrong.
    """
    name, text = _read(source)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is not valid TOML: {error}") from None
    try:
        return build_spec(document, overrides or {}, name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def shipped_specs() -> list[str]:
    """Names of the specifications that travel with the package."""
    root = resources.files("vlmprof.sweeps")
    names = [entry.name for entry in root.iterdir()]
    nested = [f"{n}/{e.name}" for n in names if "." not in n for e in _entries(root.joinpath(n))]
    return sorted(n.removesuffix(".toml") for n in [*names, *nested] if n.endswith(".toml"))


def option(name: str) -> str:
    """A field's command-line option: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def _in_order(stages: Sequence[str]) -> tuple[str, ...]:
    """Stages in running order. Each works on the output of the one before, so there may be no gap."""
    ordered = tuple(stage for stage in STAGES if stage in stages)
    first = STAGES.index(ordered[0]) if ordered else len(STAGES)
    if first > STAGES.index("vision") or ordered != STAGES[first : first + len(ordered)]:
        raise UserError("stages: must be consecutive and begin with preprocess or vision")
    return ordered


def _entries(folder: Any) -> Sequence[Any]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _read(source: str) -> tuple[str, str]:
    path = Path(source)
    if path.is_file():
        try:
            return path.stem, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source} cannot be read: {error}") from None
    shipped = source.removesuffix(".toml")
    if shipped not in shipped_specs():
        raise unknown("specification (no such file either)", source, shipped_specs())
    text = resources.files("vlmprof.sweeps").joinpath(f"{shipped}.toml").read_text(encoding="utf-8")
    return shipped.replace("/", "-"), text
