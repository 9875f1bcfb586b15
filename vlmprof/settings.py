"""The typed configuration of a sweep, without torch: `Axes` (of one cell), `Settings` (of all cells) and
`Machine`.

`fields.py` parses user input into these types; all other code reads their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

AxisValue = str | int | float

Dtype = Literal["float32", "bfloat16", "float16"]
Mode = Literal["eager", "compile", "graphs"]
Attention = Literal["auto", "flash", "efficient", "cudnn", "math"]
KernelBackend = Literal["auto", "reference", "torch", "triton"]
CacheState = Literal["hot", "cold"]
LevelsRun = Literal["through-tap", "all"]
LLMPrecision = Literal["as-dtype", "int8-weight", "int8-dynamic", "int4-weight", "fp8"]
TilingKind = Literal["anyres", "dynamic"]
TilingMode = Literal["none", "anyres", "dynamic"]
PrefillChunk = int | Literal["none"]
StageName = Literal["preprocess", "vision", "connector", "prefill", "decode"]
Sampling = Literal["fixed", "adaptive"]
Order = Literal["lines", "interleaved", "random"]
Logits = Literal["all", "last"]
Outputs = Literal["freed", "kept"]
Fit = Literal["resize", "letterbox", "pad"]
Processor = Literal["own", "one-piece"]
ProcessorBackend = Literal["auto", "pil", "torchvision"]

AS_BEFORE: Mapping[str, AxisValue] = {
    "tiling": "none", "frames": 1, "prefill_chunk": "none", "llm_precision": "as-dtype",
}  # fmt: skip
"""Values that leave out what an axis adds: as in versions without the axis, and in head lines unsaid."""

_NAMED_BY_A_VLM = ("backbone", "llm", "connector")
PARTS = (
    *_NAMED_BY_A_VLM, "level", "levels", "kernel_backend", "tiling", "tile_size", "max_tiles", "frames",
    "prefill_chunk", "llm_precision",
)  # fmt: skip
"""Axes that are not given for a VLM from transformers: its configuration names the first three."""


@dataclass(frozen=True)
class AxisValues:
    """The values of each axis of a sweep. Either `vlm` or the axes that it replaces have none."""

    vlm: tuple[str, ...] = ()
    backbone: tuple[str, ...] = ()
    resolution: tuple[str, ...] = ()
    llm: tuple[str, ...] = ()
    connector: tuple[str, ...] = ()
    dtype: tuple[Dtype, ...] = ()
    batch_size: tuple[int, ...] = ()
    mode: tuple[Mode, ...] = ()
    attention: tuple[Attention, ...] = ()
    kernel_backend: tuple[KernelBackend, ...] = ()
    cache: tuple[CacheState, ...] = ()
    level: tuple[int | Literal["last"], ...] = ()
    levels: tuple[LevelsRun, ...] = ()
    tiling: tuple[TilingMode, ...] = ()
    tile_size: tuple[int | Literal["auto"], ...] = ()
    max_tiles: tuple[int | Literal["auto"], ...] = ()
    frames: tuple[int, ...] = ()
    prefill_chunk: tuple[PrefillChunk, ...] = ()
    llm_precision: tuple[LLMPrecision, ...] = ()

    @property
    def named(self) -> Mapping[str, tuple[AxisValue, ...]]:
        """The axes that have values, by name, in the order in which a plan varies them."""
        return {axis.name: values for axis in fields(self) if (values := getattr(self, axis.name))}


@dataclass(frozen=True)
class Axes:
    """The value of every axis for one cell."""

    backbone: str
    """For a VLM from transformers, the name shown in figure legends."""
    resolution: str
    """As written: `512`, or `1333x800` for width by height in pixels. Of a photo, if that is tiled."""
    llm: str
    connector: str = "mlp2"
    dtype: Dtype = "bfloat16"
    batch_size: int = 1
    mode: Mode = "eager"
    attention: Attention = "auto"
    kernel_backend: KernelBackend = "auto"
    cache: CacheState = "hot"
    level: int = 3
    levels: LevelsRun = "through-tap"
    tiling: TilingMode = "none"
    tile_px: int = 0
    """Side of a tile; 0 without tiling."""
    max_tiles: int = 0
    """Most tiles of a photo, without the one of the whole photo; 0 without tiling."""
    frames: int = 1
    """Frames of each video; 1 for images."""
    prefill_chunk: PrefillChunk = "none"
    """Positions that the LLM is given at once in prefill, with a key–value cache; all without it if none."""
    llm_precision: LLMPrecision = "as-dtype"
    """How torchao quantizes the linear layers of the LLM; not at all if `as-dtype`."""
    vlm: str | None = None
    """A VLM from transformers; `kernel_backend`, `level` and `levels` do not apply to it."""
    memory_limit_bytes: int | None = None
    """The memory limit of an out-of-memory frontier probe."""

    @cached_property
    def named(self) -> Mapping[str, AxisValue]:
        """Return the axes that apply to this cell by name: the columns of its row.

        `tiling` includes tile size and number: `dynamic-448-12`.
        """
        names = _AXES if self.vlm is None else _AXES_OF_A_VLM
        values = {name: getattr(self, name) for name in names}
        if self.tiling != "none":
            values["tiling"] = f"{self.tiling}-{self.tile_px}-{self.max_tiles}"
        if self.memory_limit_bytes is not None:
            values["memory_limit_bytes"] = self.memory_limit_bytes
        return values


AXIS_NAMES = tuple(axis.name for axis in fields(Axes) if axis.name not in ("tile_px", "max_tiles"))
"""Every axis that a row may have."""

_AXES = tuple(name for name in AXIS_NAMES if name not in ("vlm", "memory_limit_bytes"))
_AXES_OF_A_VLM = ("vlm", *(name for name in _AXES if name in _NAMED_BY_A_VLM or name not in PARTS))


WARM_UP_SHARE = 1 / 3
"""Largest share of the measuring budget for adaptive warm-up."""


@dataclass(frozen=True)
class Settings:
    """The settings shared by every cell of a sweep."""

    sampling: Sampling
    warm_up: int | None
    """Discarded iterations; None to discard until latencies settle."""
    iterations: int | None
    """Measured iterations; an upper bound when sampling is adaptive."""
    target: float
    """Relative half-width of the medians' 95 % intervals at which adaptive sampling stops."""
    budget_s: float
    least_s: float
    profile: bool
    order: Order
    share_llm: bool
    stages: tuple[StageName, ...]
    prompt_tokens: int
    new_tokens: int
    logits: Logits
    autocast: bool
    outputs: Outputs
    frame_batch: int | None
    """Frames that the encoder is given at once; None for those of all videos."""
    seed: int
    weights: str | None
    study_checkpoint: str | None
    image: str | None
    fit: Fit
    processor: Processor
    """Who prepares the images of a VLM of transformers."""
    processor_backend: ProcessorBackend
    device: str
    memory_limit_bytes: int | None
    cell_timeout_s: float | None
    cool_down_s: float | None
    run_after_oom: bool

    @property
    def longest_sampling_s(self) -> float | None:
        """The longest time to sample a cell in seconds, with adaptive warm-up; None without a budget."""
        if self.sampling == "fixed":
            return None
        return self.budget_s * (1 + WARM_UP_SHARE * (self.warm_up is None))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as stored in `run.json`, under `fixed`."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


@dataclass(frozen=True)
class Machine:
    """The device that cells run on, and its machine."""

    device: str
    """As torch names it: `cpu`, `cuda:0`."""
    device_name: str
    device_memory_bytes: int | None = None
    device_uuid: str | None = None
    """The UUID of an NVIDIA GPU, as the driver reports it; not stored in `run.json`."""
    ceilings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Ceilings by dtype, measured when the sweep began; inner keys are row columns."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further entries for `run.json`: versions, commit, processor, load."""

    @property
    def kind(self) -> str:
        """The type of the device: `cpu`, `cuda`."""
        return self.device.split(":")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the machine as stored in `run.json`, under `environment`."""
        own = {"device": self.device, "device_name": self.device_name}
        ceilings = {"ceilings": dict(self.ceilings)} if self.ceilings else {}
        return {**self.facts, **own, "device_memory_bytes": self.device_memory_bytes, **ceilings}
