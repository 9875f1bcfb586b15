"""Facts of encoders of transformers and timm, kept on disk because they take seconds to find out. No torch.

An entry belongs to one configuration, one set of library versions and one state of this package's code, so
none is ever out of date. A cache that cannot be read or written is ignored: facts are found out again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmprof import files
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.backbones.token_layout import TokenLayout

VARIABLE = "VLMPROF_FACTS_CACHE"
LIBRARIES = ("torch", "transformers", "timm")

Size = tuple[str, int, int, int]
"""The levels to run, the tapped level, and the height and width in pixels at which an encoder was run."""


def folder() -> Path | None:
    """Return VLMPROF_FACTS_CACHE, or vlmprof/facts in XDG_CACHE_HOME or ~/.cache; None for no cache."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "vlmprof" / "facts"
    except RuntimeError:  # a user without a home
        return None


def cached_facts(name: str) -> BackboneFacts | None:
    """Return the facts of an encoder named `hf:…` or `timm:…`, if they are kept."""
    kept = _read(name).get("facts")
    try:
        return replace(_from_json(kept), name=name) if kept else None
    except (TypeError, KeyError):
        return None


def keep_facts(name: str, facts: BackboneFacts) -> None:
    """Keep the facts of an encoder."""
    _write(name, {"facts": asdict(replace(facts, name="")), "checked": []})


def is_checked(name: str, at: Size) -> bool:
    """Return whether the encoder was built and run at this size, and gave what its facts say."""
    return list(at) in _read(name).get("checked", [])


def keep_checked(name: str, at: Size) -> None:
    """Keep that the encoder was run at this size."""
    kept = _read(name)
    if kept and list(at) not in kept["checked"]:
        _write(name, {**kept, "checked": [*kept["checked"], list(at)]})


def _from_json(kept: dict[str, Any]) -> BackboneFacts:
    config = dict(kept["config"])
    if "layouts" in config:
        config["layouts"] = tuple(TokenLayout(**layout) for layout in config["layouts"])
    if "reductions" in config:
        config["reductions"] = tuple(config["reductions"])
    lists = {key: tuple(value) for key, value in kept.items() if key != "config" and isinstance(value, list)}
    return BackboneFacts(**{**kept, **lists, "config": config})


def _file(name: str) -> Path | None:
    where, content = folder(), _content(name)
    if where is None or content is None:
        return None
    return where / f"{sha256(content + _versions().encode()).hexdigest()[:32]}.json"


def _content(name: str) -> bytes | None:
    """Return what an encoder's facts follow from: its configuration file, or its name in timm."""
    if name.startswith("timm:"):
        return name.encode()
    source = name.removeprefix("hf:")
    path = files.path_of(source)
    if files.is_folder(path):
        path = path / "config.json"
    elif not files.exists(path):
        path = _downloaded(source) or path
    try:
        return files.read_bytes(path)
    except OSError:
        return None


def _downloaded(source: str) -> Path | None:
    """Return a hub model's configuration file, if the hub's own cache has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _versions() -> str:
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            versions.append(f"no {library}")
    code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return f"{' '.join(versions)} {sha256(code).hexdigest()}"


def _read(name: str) -> dict[str, Any]:
    file = _file(name)
    try:
        kept = files.read_json(file) if file else {}
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and {"facts", "checked"} <= kept.keys() else {}


def _write(name: str, kept: dict[str, Any]) -> None:
    file = _file(name)
    if file is None:
        return
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(file, json.dumps(kept))
