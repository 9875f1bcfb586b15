"""What a sweep writes down: one typed row per cell, every field with its unit in its name.

A row is nested in memory (`Row.stages["vision"].host_s`) and flat on disk and in a DataFrame
(`host_vision_s`), so that the columns are the same for every cell whatever stages it ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from vlmprof.settings import AxisValue

STAGES = ("preprocess", "vision", "connector", "prefill", "decode")
"""The timed units of one iteration, in the order in which they run."""

END_TO_END_PARTS = ("before_llm_s", "from_llm_s")
"""Samples instead of `end_to_end_s` where a cell shares its LLM: its own iterations up to the LLM, and what
those of the source row took from there on."""


class Status(StrEnum):
    """How a cell ended. Only `ok` rows carry latencies."""

    OK = "ok"
    OOM = "oom"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"


FAILED = (Status.ERROR, Status.TIMEOUT)
"""Ends of a cell that say nothing of its cost."""


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
    encoder_tokens: int | None = None
    """What the encoder of a VLM of transformers gives for an image, before the connector."""
    tiles: int | None = None
    """Pictures that its own processor makes of a photo, and the size that the encoder sees of each."""
    encoder_height_px: int | None = None
    encoder_width_px: int | None = None
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
    decode_tokens_per_s: float | None = None
    """Further tokens of all images of the batch per second."""
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
    energy_per_image_j: float | None = None
    """Of the whole GPU, over the measuring window. None where that was too short for the counter."""
    cpu_clock_mean_mhz: float | None = None
    other_load_cores: float | None = None
    """Processor time that other processes took per second of measuring."""
    llm_shared_from: str | None = None
    """The cell whose LLM stages this row took over; its end-to-end and peaks are then sums of parts."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Which implementation of each replaceable part ran, such as `{"ss2d": "torch"}`."""
    warnings: tuple[str, ...] = ()
    """What a reader of the samples or the output should know."""
    disturbances: tuple[str, ...] = ()
    """What the machine did meanwhile that may have changed the numbers."""

    def to_flat(self) -> dict[str, Any]:
        """The row as one JSON object: axes and stage figures become columns of their own."""
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
    def from_flat(cls, flat: Mapping[str, Any]) -> Row:
        """The inverse of `to_flat`. Columns that are no field of a row are axes.

        Raises `KeyError` or `ValueError` when a required column is missing or a status unknown.
        """
        rest = dict(flat)
        stages = {}
        for stage in STAGES:
            figures = {name: rest.pop(column, None) for name, column in _STAGE_COLUMNS[stage]}
            if any(value is not None for value in figures.values()):
                stages[stage] = StageFigures(**figures)
        own = {name: rest.pop(name) for name in ("cell_id", *_OWN_COLUMNS) if name in rest}
        own["status"] = Status(own["status"])
        own |= {name: tuple(own.get(name, ())) for name in ("warnings", "disturbances")}
        missing = _REQUIRED - own.keys()
        if missing:
            raise KeyError(f"row without {', '.join(sorted(missing))}")
        return cls(axes=rest, stages=stages, **own)


def completed(flat: dict[str, Any]) -> dict[str, Any]:
    """A flat row with the columns that an older version did not write yet; quicker than by way of a `Row`.

    Raises as `Row.from_flat` does.
    """
    Status(flat["status"])
    if not flat.keys() >= _REQUIRED:
        raise KeyError(f"row without {', '.join(sorted(_REQUIRED - flat.keys()))}")
    if flat.keys() >= _UNSAID.keys():
        return flat
    return flat | {name: _UNSAID[name] for name in _UNSAID.keys() - flat.keys()}


def stage_column(figure: str, stage: str) -> str:
    """The flat name of a stage's figure: `host_s` of `vision` is `host_vision_s`, and
    `achieved_flops_per_s` is `achieved_vision_flops_per_s`: the stage stands before the unit."""
    words_of_unit = 3 if figure.endswith("_per_s") else 1
    head, *unit = figure.rsplit("_", words_of_unit)
    return "_".join((head, stage, *unit))


# worked out once: a report reads a hundred thousand rows
_NOTHING = StageFigures()
_OWN_COLUMNS = tuple(f.name for f in fields(Row) if f.name not in ("cell_id", "axes", "stages"))
_STAGE_COLUMNS = {
    stage: tuple((f.name, stage_column(f.name, stage)) for f in fields(StageFigures)) for stage in STAGES
}
_REQUIRED = {"cell_id", "height_px", "width_px"}
_UNSAID = Row("", {}, 0, 0, Status.OK).to_flat()
