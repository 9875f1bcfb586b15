"""The jobs of `kernel_worker`, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmprof.kernels.tools.bench_ops import Ceilings


@dataclass(frozen=True)
class BenchJob:
    """The rows of one operation."""

    op: str
    model: str
    resolutions: tuple[int, ...]
    levels: tuple[int, ...]
    dtypes: tuple[str, ...]
    backends: tuple[str, ...]
    baselines: tuple[str, ...]
    """Other implementations of `ss2d` to time."""
    public: Path | None
    seconds: float
    ceilings: Mapping[str, Ceilings]
    """Ceilings by dtype, where they could be measured."""


@dataclass(frozen=True)
class EncoderJob:
    """The modes of one encoder at one resolution."""

    backbone: str
    resolution: int
    dtype: str
    levels: str
    modes: tuple[str, ...]
    public: Path | None
    seconds: float


@dataclass(frozen=True)
class TuneJob:
    """The shapes to tune `ss2d` for."""

    model: str
    dtype: str
    resolutions: tuple[int, ...]
    levels: tuple[int, ...]
