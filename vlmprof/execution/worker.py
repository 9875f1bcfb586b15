"""Measurement of one cell in its own process: build the pipeline, measure it, turn the result into a row.

Axes, Settings -> Pipeline -> Measurement -> Row
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from vlmprof.cost.count import count_cell
from vlmprof.execution.endings import in_plain_words
from vlmprof.execution.limits import limit_memory
from vlmprof.execution.modes import CompileTime, attention_backend, quiet_autograd
from vlmprof.execution.pipelines import Pipeline, build_pipeline
from vlmprof.execution.rows import unmeasured_row
from vlmprof.execution.status_board import StatusBoard
from vlmprof.measure.clocks import make_current
from vlmprof.measure.measurement import Measurement, MeasurementProtocol, failed_pass, measure_in_steps
from vlmprof.measure.memory import NO_PEAKS, rss_bytes
from vlmprof.measure.observer import Phase
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.measure.samples import Samples
from vlmprof.measure.stopping import Adaptive, FixedCount, Settling
from vlmprof.plan import Cell
from vlmprof.records import Row, StageFigures, Status
from vlmprof.settings import WARM_UP_SHARE, Axes, Settings
from vlmprof.vlm.decoding import Context

logger = logging.getLogger(__name__)

FEWEST_ITERATIONS = 2
"""Iterations of a cell that are measured whatever the budget."""

ELEMENTS_AT_ONCE = 1 << 22
"""Elements checked at once for NaN and infinity, so that the check does not raise the peak memory."""

Measured = tuple[Row, Samples]


def run_cell(
    cell: Cell, settings: Settings, device_name: str, board: StatusBoard
) -> Generator[Measured, None, Measured]:
    """Measure `cell` on `settings.device`; yield row and samples after each step and return the final ones.

    Running out of memory results in a row; all other errors of the model propagate.
    """
    begun_s = time.perf_counter()
    row = replace(unmeasured_row(cell, device_name), prompt_tokens=settings.prompt_tokens)
    samples = Samples()
    try:
        with attention_backend(cell.axes, settings.device):
            row, samples = yield from _measured_rows(row, cell, settings, board)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        place = board.read().place
        logger.warning("out of memory in %s", place, exc_info=True)
        message = in_plain_words(str(error), settings.memory_limit_bytes) or "MemoryError"
        row = replace(row, status=Status.OOM, oom_stage=place, message=message)
    return replace(row, wall_s=time.perf_counter() - begun_s), samples


def _measured_rows(
    row: Row, cell: Cell, settings: Settings, board: StatusBoard
) -> Generator[Measured, None, Measured]:
    """Yield the row after each step of its measurement, because the next step may kill this process."""
    device = torch.device(settings.device)
    make_current(device)
    row = replace(row, baseline_rss_bytes=rss_bytes())
    if settings.memory_limit_bytes:
        limit_memory(settings.memory_limit_bytes, device)
    board.enter(Phase.BUILDING, "build")
    begun_s = time.perf_counter()
    pipeline = build_pipeline(cell.axes, (cell.height_px, cell.width_px), settings, device)
    row = replace(row, build_s=time.perf_counter() - begun_s)
    logger.info("built %s in %.3g s", cell.label, row.build_s)
    compiling = CompileTime(cell.axes.mode)
    with quiet_autograd(cell.axes.mode), compiling:
        steps = measure_in_steps(
            pipeline.stages, protocol_of(cell.axes, settings),
            first_input=pipeline.first_input, device=device, observer=board, inspect=inspect_output,
        )  # fmt: skip
        for measurement in steps:
            row = replace(row, compile_s=compiling.total_s)
            yield row_from(row, cell, settings, pipeline, measurement), measurement.samples
    counted: Mapping[str, StageFigures] = {}
    try:
        counted, assumed = _counted(cell, settings, pipeline, device)
        measurement = replace(measurement, warnings=(*measurement.warnings, *assumed))
    except Exception as error:  # whatever counting raises, the measurement is valid
        failed = failed_pass("counting its costs", error)
        measurement = replace(measurement, warnings=(*measurement.warnings, failed))
    return row_from(row, cell, settings, pipeline, measurement, counted), measurement.samples


def protocol_of(axes: Axes, settings: Settings) -> MeasurementProtocol:
    """Return the protocol for a cell with these axes and settings."""
    watched = watched_columns(settings)
    if settings.sampling == "fixed":
        assert settings.iterations is not None  # filled in by `spec` for fixed sampling
        stopping: FixedCount | Adaptive = FixedCount(settings.iterations)
    else:
        stopping = Adaptive(
            watched=watched, target=settings.target, budget_s=settings.budget_s, least_s=settings.least_s,
            most=settings.iterations or Adaptive.most, fewest=FEWEST_ITERATIONS,
        )  # fmt: skip
    settling = Settling(budget_s=min(Settling.budget_s, settings.budget_s * WARM_UP_SHARE))
    return MeasurementProtocol(
        warm_up=settling if settings.warm_up is None else settings.warm_up,
        stopping=stopping,
        judged=watched,
        cold_cache=axes.cache == "cold",
        keep_output=settings.outputs == "kept",
        # a graph allocates its memory during capture, so a replay shows none of it
        stage_memory=axes.mode != "graphs",
        profile=settings.profile,
    )


def watched_columns(settings: Settings) -> tuple[str, ...]:
    """Return the latency columns that sampling makes precise: those that figures show, of the GPU if any."""
    clock = "host" if settings.device.startswith("cpu") else "gpu"
    shown = [name for name in ("vision", "prefill", "decode") if name in settings.stages]
    return (*(f"{clock}_{name}_s" for name in shown), "end_to_end_s")


@dataclass(frozen=True)
class OutputFacts:
    """The facts about an iteration's output that a row records."""

    cache_bytes: int | None
    """Size of the key–value cache, if there is one."""
    is_finite: bool


def inspect_output(output: Any) -> OutputFacts:
    """Inspect the output of the last stage."""
    if isinstance(output, Context):
        return OutputFacts(output.state_bytes(), output.logits is None or is_finite(output.logits))
    return OutputFacts(None, not isinstance(output, torch.Tensor) or is_finite(output))


def is_finite(values: torch.Tensor) -> bool:
    """Return whether `values`, of any shape, are all finite, using little additional memory."""
    return all(bool(part.isfinite().all()) for part in values.flatten().split(ELEMENTS_AT_ONCE))


def row_from(
    row: Row,
    cell: Cell,
    settings: Settings,
    pipeline: Pipeline,
    measurement: Measurement,
    counted: Mapping[str, StageFigures] = {},
) -> Row:
    """Complete a cell's row with the measurement of its pipeline and the counts of its stages."""
    output: OutputFacts = measurement.first_output or OutputFacts(cache_bytes=None, is_finite=True)
    not_finite = () if output.is_finite else ("the output contains NaN or infinity",)
    stages: dict[str, StageFigures] = {
        name: _stage_figures(name, pipeline, measurement, counted.get(name, StageFigures()))
        for name in settings.stages
    }
    completed = replace(
        row,
        visual_tokens=pipeline.visual_tokens or row.visual_tokens,
        encoder_tokens=pipeline.encoder_tokens or row.encoder_tokens,
        tiles=pipeline.tiles or row.tiles,
        encoder_height_px=pipeline.encoder_size[0] if pipeline.encoder_size else None,
        encoder_width_px=pipeline.encoder_size[1] if pipeline.encoder_size else None,
        stages=stages,
        end_to_end_s=measurement.samples.mean_s("end_to_end_s"),
        **asdict(measurement.peaks),
        nvml_process_bytes=measurement.nvml_process_bytes,
        weight_bytes=sum(pipeline.weight_bytes.values()),
        cache_bytes=output.cache_bytes,
        warm_up=measurement.warm_up_iterations,
        iterations=measurement.iterations,
        first_iteration_s=measurement.first_iteration_s,
        backends=dict(pipeline.backends),
        warnings=(*pipeline.warnings, *not_finite, *measurement.warnings),
    )
    if "decode" not in stages:
        return completed
    return _with_token_times(completed, measurement.samples, settings.new_tokens, cell.axes.batch_size)


def _stage_figures(
    name: str, pipeline: Pipeline, measurement: Measurement, counted: StageFigures
) -> StageFigures:
    host_s, gpu_s = (measurement.samples.mean_s(f"{clock}_{name}_s") for clock in ("host", "gpu"))
    figures = replace(
        counted,
        host_s=host_s,
        gpu_s=gpu_s,
        gpu_busy_s=measurement.gpu_busy_s.get(name),
        weight_bytes=pipeline.weight_bytes.get(name),
        **asdict(measurement.stage_peaks.get(name, NO_PEAKS)),
    )
    latency_s = gpu_s or host_s
    if not latency_s or figures.counted_flops is None or figures.counted_bytes is None:
        return figures
    return replace(
        figures,
        achieved_flops_per_s=figures.counted_flops / latency_s,
        achieved_bytes_per_s=figures.counted_bytes / latency_s,
    )


def _with_token_times(row: Row, samples: Samples, new_tokens: int, batch_size: int) -> Row:
    """Add TTFT, TPOT and tokens per second, from the device's clock if it has one."""
    column = "gpu_decode_s" if "gpu_decode_s" in samples else "host_decode_s"
    decode_s = samples.mean_s(column)
    if not decode_s or row.end_to_end_s is None:
        return row
    tpot_s = decode_s / new_tokens
    return replace(
        row,
        ttft_s=row.end_to_end_s - decode_s,
        tpot_s=tpot_s,
        decode_tokens_per_s=batch_size / tpot_s,
        new_tokens=new_tokens,
    )


def _counted(
    cell: Cell, settings: Settings, pipeline: Pipeline, device: torch.device
) -> tuple[dict[str, StageFigures], tuple[str, ...]]:
    """Count each stage's FLOPs and bytes, and list assumptions."""
    costs = count_cell(cell, settings, "triton" if pipeline.backends.get("ss2d") == "triton" else "torch")
    figures = {
        name: StageFigures(
            counted_flops=cost.flops - cost.skipped_flops,
            counted_bytes=cost.moved_bytes + (cost.scratch_bytes if device.type != "cpu" else 0),
        )
        for name, cost in costs.stages.items()
    }
    return figures, costs.assumptions
