"""The records of a sweep: one typed row per cell, with units in the field names.

A row is nested in memory (`Row.stages["vision"].host_s`) and flat on disk and in a DataFrame
(`host_vision_s`), so that all cells have the same columns, whichever stages they ran.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from vlmprof.settings import AXIS_NAMES, Axes, AxisValue

STAGES = ("preprocess", "vision", "connector", "prefill", "decode")
"""The timed units of one iteration, in the order in which they run."""

END_TO_END_PARTS = ("before_llm_s", "from_llm_s")
"""Sample columns that replace `end_to_end_s` when a cell shares its LLM: the cell's own iterations before the
LLM, and the source row's iterations from the LLM on."""


class Status(StrEnum):
    """How a cell ended. Only `ok` rows carry latencies."""

    OK = "ok"
    OOM = "oom"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"


FAILED = (Status.ERROR, Status.TIMEOUT)
"""Statuses that carry no information about a cell's cost."""


@dataclass(frozen=True)
class StageFigures:
    """The figures of one stage of one cell. `None` means that the machine has no such clock or counter.

    Latencies are means over the measured iterations; raw samples are stored separately.
    Peaks are the process's high-water marks during the stage, including the weights of all stages.
    """

    host_s: float | None = None
    gpu_s: float | None = None
    gpu_busy_s: float | None = None
    """GPU time with a kernel running, from a profiled iteration; the GPU is idle for the rest of `gpu_s`."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    weight_bytes: int | None = None
    counted_flops: int | None = None
    """FLOPs, counted rather than measured: 1 MAC = 2 FLOPs, excluding work that a causal mask skips."""
    counted_bytes: int | None = None
    """Lower bound on the bytes that unfused operations move, counted rather than measured."""
    achieved_flops_per_s: float | None = None
    """Counted FLOPs per second of mean GPU latency, or of mean host latency without a GPU."""
    achieved_bytes_per_s: float | None = None
    """Counted bytes per second of the same latency. Values above the copy ceiling indicate cache hits."""


@dataclass(frozen=True)
class Row:
    """The result of one cell."""

    cell_id: str
    axes: Mapping[str, AxisValue]
    """The cell's own values: backbone, resolution (as written), llm and every other axis."""
    height_px: int
    width_px: int
    status: Status
    repeat: int = 1
    """Which measurement of the cell this is, counted from 1. Each runs in a new process."""
    oom_stage: str | None = None
    """Where the cell ran out of memory: a stage, `build` (the model) or `load` (the process)."""
    message: str | None = None
    visual_tokens: int | None = None
    """Tokens of an image or a video that the LLM is given, after the connector."""
    encoder_tokens: int | None = None
    """The same before the connector; None in rows of versions without connectors that merge."""
    tiles: int | None = None
    """Pictures that a photo is cut into, and the size that the encoder sees of each."""
    encoder_height_px: int | None = None
    encoder_width_px: int | None = None
    prompt_tokens: int | None = None
    stages: Mapping[str, StageFigures] = field(default_factory=dict)
    end_to_end_s: float | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    baseline_rss_bytes: int | None = None
    """Resident size of the cell's process with its libraries loaded, before the model is built."""
    nvml_process_bytes: int | None = None
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    """The key–value cache (or a state-space model's state) after the last new token."""
    ttft_s: float | None = None
    """Time to first token: end-to-end latency without the decode stage."""
    tpot_s: float | None = None
    """Time per output token after the first."""
    decode_tokens_per_s: float | None = None
    """Output tokens per second after the first, over all images of the batch."""
    new_tokens: int | None = None
    warm_up: int | None = None
    iterations: int | None = None
    build_s: float | None = None
    first_iteration_s: float | None = None
    """End-to-end latency of the first warm-up iteration, including compilation."""
    compile_s: float | None = None
    """The part of `first_iteration_s` spent in torch.compile, if the mode compiles."""
    wall_s: float | None = None
    started_at: str | None = None
    device: str | None = None
    """The device that the cell ran on, as the driver names it."""
    matmul_ceiling_flops_per_s: float | None = None
    """Rate of a large matrix product on the device, in the cell's dtype, measured when the sweep began."""
    copy_ceiling_bytes_per_s: float | None = None
    """Rate of a large copy, reads and writes together."""
    gpu_clock_mean_mhz: float | None = None
    gpu_clock_min_mhz: float | None = None
    gpu_clock_max_mhz: float | None = None
    gpu_temperature_max_c: float | None = None
    gpu_power_mean_w: float | None = None
    energy_per_image_j: float | None = None
    """Energy of the whole GPU over the measuring window, per image or video; None if the window is too short
    for the counter."""
    cpu_clock_mean_mhz: float | None = None
    other_load_cores: float | None = None
    """CPU time of other processes per second of measurement."""
    llm_shared_from: str | None = None
    """The cell whose LLM measurement this row shares; end-to-end latency and peaks are then sums of parts."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """The implementation used for each replaceable part, such as `{"ss2d": "torch"}`."""
    warnings: tuple[str, ...] = ()
    """Caveats about the samples or the output."""
    disturbances: tuple[str, ...] = ()
    """Events on the machine that may have affected the numbers."""

    @property
    def resolution(self) -> str:
        """The cell's resolution as written: `512`, or `1333x800` for width by height."""
        return str(self.axes["resolution"])

    def to_flat(self) -> dict[str, Any]:
        """Return the row as a flat JSON object, with a column for each axis and each figure of a stage."""
        flat: dict[str, Any] = {"cell_id": self.cell_id, **self.axes}
        for name in _OWN_COLUMNS:
            flat[name] = getattr(self, name)
        flat |= {"status": str(self.status), "backends": dict(self.backends), "warnings": list(self.warnings)}
        flat["disturbances"] = list(self.disturbances)
        for stage in STAGES:
            figures = self.stages.get(stage, _NOTHING)
            for name, column in _STAGE_COLUMNS[stage]:
                flat[column] = getattr(figures, name)
        return flat

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any], axes: Collection[str] = AXIS_NAMES) -> Row:
        """Build a row from the output of `to_flat`. Columns that are neither fields of a row nor in `axes`
        come from a newer version, and are ignored.

        Raises `KeyError`, `ValueError` or `TypeError` if a required column is missing, the status is unknown,
        or an id or an axis is not a plain value.
        """
        rest = completed(dict(flat))
        stages = {}
        for stage in STAGES:
            figures = {name: rest.pop(column, None) for name, column in _STAGE_COLUMNS[stage]}
            if any(value is not None for value in figures.values()):
                stages[stage] = StageFigures(**figures)
        own = {name: rest.pop(name) for name in ("cell_id", *_OWN_COLUMNS) if name in rest}
        own["status"] = Status(own["status"])
        own |= {name: tuple(own[name]) for name in ("warnings", "disturbances")}
        return cls(axes={n: value for n, value in rest.items() if n in axes}, stages=stages, **own)


def plausible(value: object) -> bool:
    """Return whether a value can be a measurement: a number is 0, or from 10⁻¹⁵ to 9 × 10¹⁸ in its unit.
    Statistics and figures would fail for NaN and for values far outside."""
    return type(value) not in (float, int) or value == 0 or _SMALLEST <= abs(value) <= _LARGEST  # type: ignore[arg-type]


_SMALLEST, _LARGEST = 1e-15, 9e18
_MEASURED = ("_s", "_bytes", "_flops", "_j", "_mhz", "_w", "_c")
"""Ends of the names of columns that are measured or counted."""


def repeat_id(cell_id: str, repeat: int) -> str:
    """Return the id under which a repeat of a cell is stored; the first has the cell's own."""
    return cell_id if repeat == 1 else f"{cell_id}{_REPEAT}{repeat}"


def cell_of_repeat(stored_id: str, repeat: int) -> str:
    """Return the id of the cell whose repeat is stored under this id."""
    return stored_id if repeat == 1 else stored_id.removesuffix(f"{_REPEAT}{repeat}")


def completed(flat: dict[str, Any]) -> dict[str, Any]:
    """Add the columns that older versions did not write to a flat row. Faster than going through a `Row`.

    Raises the same errors as `Row.from_flat`.
    """
    Status(flat["status"])
    if type(flat["cell_id"]) is not str or any(type(flat.get(axis)) in (list, dict) for axis in AXIS_NAMES):
        raise TypeError("an id or an axis is not a plain value")
    if not flat.keys() >= _REQUIRED:
        raise KeyError(f"row without {', '.join(sorted(_REQUIRED - flat.keys()))}")
    if not all(type(flat[side]) is int and 0 < flat[side] < 2**31 for side in ("height_px", "width_px")):
        raise ValueError("a side of the image is not a number of pixels")
    if not all(flat.get(axis, "unknown") for axis in ("backbone", "resolution")):
        raise ValueError("the backbone or the resolution has no name")
    if _RESOLUTION.fullmatch(str(flat.get("resolution", "0"))) is None:
        raise ValueError("the resolution is not one or two sides in pixels")
    for name, value in flat.items():
        if not plausible(value) and name.endswith(_MEASURED):
            raise ValueError(f"{name} is {value}, which nothing measures")
    if flat.keys() >= _UNSAID.keys():
        return flat
    return flat | {name: value for name, value in _UNSAID.items() if name not in flat}


def stage_column(figure: str, stage: str) -> str:
    """Return the column of a stage's figure. The stage goes before the unit: `host_s` of `vision` is
    `host_vision_s`, and `achieved_flops_per_s` is `achieved_vision_flops_per_s`."""
    words_of_unit = 3 if figure.endswith("_per_s") else 1
    head, *unit = figure.rsplit("_", words_of_unit)
    return "_".join((head, stage, *unit))


_REPEAT = "-repeat"
_RESOLUTION = re.compile(r"\d{1,7}(x\d{1,7})?", re.ASCII)
# computed once, because a report may read a hundred thousand rows
_NOTHING = StageFigures()
_OWN_COLUMNS = tuple(f.name for f in fields(Row) if f.name not in ("cell_id", "axes", "stages"))
_STAGE_COLUMNS = {
    stage: tuple((f.name, stage_column(f.name, stage)) for f in fields(StageFigures)) for stage in STAGES
}
_WHOLE = ("int", "int | None")
INTEGERS = {f.name for f in (*fields(Row), *fields(Axes)) if f.type in _WHOLE} | {
    stage_column(f.name, stage) for f in fields(StageFigures) if f.type in _WHOLE for stage in STAGES
}
"""Columns of whole numbers, which a DataFrame holds as floats where a value is missing."""
_REQUIRED = {"cell_id", "height_px", "width_px"}
_UNSAID = Row("", {}, 0, 0, Status.OK).to_flat()
