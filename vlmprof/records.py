"""What a sweep writes down: one typed row per cell, every field with its unit in its name.

A row is nested in memory (`Row.stages["vision"].host_s`) and flat on disk and in a DataFrame
(`host_vision_s`), so that the columns are the same for every cell whatever stages it ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

AxisValue = str | int | float

STAGES = ("preprocess", "vision", "connector", "prefill", "decode")
"""The timed units of one iteration, in the order in which they run."""


class Status(StrEnum):
    """How a cell ended. Only `ok` rows carry latencies."""

    OK = "ok"
    OOM = "oom"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StageFigures:
    """One stage of one cell. `None` means that this machine has no such clock or counter.

    Latencies are means over the measured iterations; the samples are kept beside the rows.
    Peaks are the process's high-water marks while the stage ran, weights of all stages included.
    """

    host_s: float | None = None
    gpu_s: float | None = None
    gpu_busy_s: float | None = None
    """GPU time with a kernel running, from a profiled iteration; the rest of `gpu_s` is waiting."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    weight_bytes: int | None = None
    counted_flops: int | None = None
    """Work by counting, not measured: 1 MAC = 2 FLOPs, without what a causal mask skips."""
    counted_bytes: int | None = None
    """Bytes that unfused operations move at least, by counting."""
    achieved_flops_per_s: float | None = None
    """Counted FLOPs over the measured mean: of the GPU's clock, or the host's where there is no GPU."""
    achieved_bytes_per_s: float | None = None
    """Counted bytes over the same. More than the copy's ceiling means that caches served."""


@dataclass(frozen=True)
class Row:
    """The result of one cell."""

    cell_id: str
    axes: Mapping[str, AxisValue]
    """The cell's own values: backbone, resolution (as written), llm and every other axis."""
    height_px: int
    width_px: int
    status: Status
    oom_stage: str | None = None
    """Where memory ran out: a stage of `STAGES`, `build` (the model) or `load` (the process)."""
    message: str | None = None
    visual_tokens: int | None = None
    prompt_tokens: int | None = None
    stages: Mapping[str, StageFigures] = field(default_factory=dict)
    end_to_end_s: float | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_rss_bytes: int | None = None
    baseline_rss_bytes: int | None = None
    """Resident size of the cell's process with its libraries, before the model is built."""
    nvml_process_bytes: int | None = None
    weight_bytes: int | None = None
    cache_bytes: int | None = None
    """The key–value cache (or a state-space model's state) after the last new token."""
    ttft_s: float | None = None
    """Time to first token: end-to-end without the decode stage."""
    tpot_s: float | None = None
    """Time per further token."""
    new_tokens: int | None = None
    warm_up: int | None = None
    iterations: int | None = None
    build_s: float | None = None
    first_iteration_s: float | None = None
    """End-to-end of the first warm-up iteration, compiling included."""
    compile_s: float | None = None
    """What torch.compile took of it, where the mode compiles."""
    wall_s: float | None = None
    started_at: str | None = None
    device: str | None = None
    """What the cell ran on, as the driver names it."""
    matmul_ceiling_flops_per_s: float | None = None
    """What a large matrix product reached on that device in the cell's dtype when the sweep began."""
    copy_ceiling_bytes_per_s: float | None = None
    """What a large copy reached, reading and writing together."""
    gpu_clock_mean_mhz: float | None = None
    gpu_clock_min_mhz: float | None = None
    gpu_clock_max_mhz: float | None = None
    gpu_temperature_max_c: float | None = None
    gpu_power_mean_w: float | None = None
    energy_per_iteration_j: float | None = None
    """Of the whole GPU, over the measuring window."""
    cpu_clock_mean_mhz: float | None = None
    other_load_cores: float | None = None
    """Processor time that other processes took per second of measuring."""
    llm_shared_from: str | None = None
    """The cell whose LLM stages this row took over; its end-to-end and peaks are then sums of parts."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Which implementation of each replaceable part ran, such as `{"ss2d": "torch"}`."""
    warnings: tuple[str, ...] = ()
    """What is odd about the samples or the output."""
    disturbances: tuple[str, ...] = ()
    """What the machine did meanwhile that may have changed the numbers."""

    def to_flat(self) -> dict[str, Any]:
        """The row as one JSON object: axes and stage figures become columns of their own."""
        flat: dict[str, Any] = {"cell_id": self.cell_id, **self.axes}
        for f in fields(self):
            if f.name not in ("cell_id", "axes", "stages"):
                flat[f.name] = getattr(self, f.name)
        flat |= {"status": str(self.status), "backends": dict(self.backends), "warnings": list(self.warnings)}
        flat["disturbances"] = list(self.disturbances)
        for stage in STAGES:
            figures = self.stages.get(stage, StageFigures())
            for f in fields(StageFigures):
                flat[stage_column(f.name, stage)] = getattr(figures, f.name)
        return flat

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Row:
        """The inverse of `to_flat`. Columns that are no field of a row are axes.

        Raises `KeyError` or `ValueError` when a required column is missing or a status unknown.
        """
        rest = dict(flat)
        stages = {}
        for stage in STAGES:
            columns = {f.name: rest.pop(stage_column(f.name, stage), None) for f in fields(StageFigures)}
            if any(value is not None for value in columns.values()):
                stages[stage] = StageFigures(**columns)
        own = {f.name: rest.pop(f.name) for f in fields(cls) if f.name in rest}
        own["status"] = Status(own["status"])
        own |= {name: tuple(own.get(name, ())) for name in ("warnings", "disturbances")}
        missing = {"cell_id", "height_px", "width_px"} - own.keys()
        if missing:
            raise KeyError(f"row without {', '.join(sorted(missing))}")
        return cls(axes=rest, stages=stages, **own)


def stage_column(figure: str, stage: str) -> str:
    """The flat name of a stage's figure: `host_s` of `vision` is `host_vision_s`, and
    `achieved_flops_per_s` is `achieved_vision_flops_per_s`: the stage stands before the unit."""
    words_of_unit = 3 if figure.endswith("_per_s") else 1
    head, *unit = figure.rsplit("_", words_of_unit)
    return "_".join((head, stage, *unit))
