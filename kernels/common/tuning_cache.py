"""Launch parameters of `ss2d` and of matrix products: measured once per GPU and stored on disk.

    tools/tune.py ── keep_choice ──> cache file ──> tuned_choice ── looked up at a launch
                                   shipped tables ──┘

A choice is a positive integer: tiles per chunk of `ss2d`, or the number of a product's tile. Choices are
looked up in the user's cache file, then in the tables in `SHIPPED`: cache files of known cards. Other shapes
are launched by a rule; rows record which of the two chose for `ss2d`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import torch

KERNELS = 17
"""Version of the kernels. Increasing it drops choices measured with older kernels."""

SHIPPED = Path(__file__).parent / "tuned"
"""The folder of the cache files that ship with the kernels, one per card: what `kernels tune` wrote there."""


class Tunable(Protocol):
    """What a choice depends on, in addition to the device and the versions; hashable."""

    def key(self) -> str:
        """Return its part of the key under which the choice is stored, a text without " | "."""
        ...


@dataclass(frozen=True)
class Shape:
    """The shape that the tiles per chunk of `ss2d` depend on."""

    d_inner: int
    dt_rank: int
    d_state: int
    dtype: torch.dtype
    positions: int
    """batch · height · width; choices apply to all sizes between two powers of two."""

    def key(self) -> str:
        """Return its part of a key."""
        kind = str(self.dtype).removeprefix("torch.")
        size = f"d_inner={self.d_inner} dt_rank={self.dt_rank} d_state={self.d_state} {kind}"
        return f"{size} positions<2^{self.positions.bit_length()}"


def stored_key(shape: Tunable, device: torch.device) -> str:
    """Return the key under which the choice for `shape` on `device` is stored."""
    versions = f"torch {torch.__version__} triton {_triton_version()} kernels {KERNELS}"
    return f"{_device_name(device)} | {versions} | {shape.key()}"


def _without_libraries(key: str) -> str:
    """Remove the versions of torch and Triton from a key, for the shipped tables: a choice that was best with
    one version is better than none with the next."""
    device, versions, size = key.split(" | ")
    return f"{device} | {versions[versions.index('kernels') :]} | {size}"


def cache_path() -> Path:
    """Return VLMPROF_TUNING_CACHE, or vlmprof/ss2d-tuning.json in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("VLMPROF_TUNING_CACHE")
    if named:
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "vlmprof" / "ss2d-tuning.json"


@lru_cache(maxsize=1024)
def tuned_choice(shape: Tunable, device: torch.device) -> int | None:
    """Return the tuned choice for this shape on this device, or None if it was not tuned.

    The user's cache takes precedence over the shipped tables. The files are read at the first launch of a
    shape in a process; later launches cost a dictionary lookup.
    """
    key, path = stored_key(shape, device), cache_path()
    own = _read(path).get(key) if path.exists() else None
    return own if own is not None else _shipped(SHIPPED).get(_without_libraries(key))


@lru_cache(maxsize=4)
def _shipped(folder: Path) -> dict[str, int]:
    """Read the choices of all tables in a folder, by keys without library versions."""
    choices: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        for key, choice in sorted(_read(path).items()):
            if key.count(" | ") == 2 and " kernels " in key:
                choices[_without_libraries(key)] = choice
    return choices


def keep_choice(shape: Tunable, device: torch.device, choice: int) -> None:
    """Store a choice on disk, in a file that other processes may be reading or writing.

    Raises OSError if the file is not writable.
    """
    path = cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(path.name + ".lock")):
        choices = _read(path) if path.exists() else {}
        choices[stored_key(shape, device)] = choice
        write_atomically(path, json.dumps(choices, indent=1, sort_keys=True) + "\n")
    tuned_choice.cache_clear()


def _read(path: Path) -> dict[str, int]:
    """Read the choices in a file; if it cannot be parsed, warn and return none."""
    try:
        choices = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(choices, dict) or not all(type(t) is int and t > 0 for t in choices.values()):
            raise ValueError("not a table of positive integers")
    except (OSError, ValueError) as error:
        warnings.warn(f"ignoring the kernel tuning in {path}: {error}", stacklevel=2)
        return {}
    return choices


def write_atomically(path: Path, text: str) -> None:
    """Write a file that other processes may be reading."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
    ) as file:
        file.write(text)
    os.replace(file.name, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@lru_cache(maxsize=16)
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@lru_cache(maxsize=1)
def _triton_version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"
