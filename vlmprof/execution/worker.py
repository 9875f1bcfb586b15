"""One cell, in its own process: build the model, warm up, measure, read the memory.

build -> first iteration -> warm-up -> measured iterations -> one pass for memory, stage by stage
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vlmprof.execution.board import Board, Phase
from vlmprof.execution.limits import limit_memory
from vlmprof.execution.oom import is_out_of_memory
from vlmprof.execution.processes import first_line
from vlmprof.measure import memory
from vlmprof.measure.clocks import device_clock
from vlmprof.measure.timeline import Stage, Timeline
from vlmprof.plan import Cell
from vlmprof.records import Row, StageFigures, Status
from vlmprof.store import Samples
from vlmprof.vlm.model import VLM, create_vlm
from vlmprof.vlm.preprocess import Preprocess

NO_PEAKS = memory.Peaks(None, None, None)


def run_cell(cell: Cell, fixed: Mapping[str, Any], device_name: str, board: Board) -> tuple[Row, Samples]:
    """Measure `cell` on `fixed["device"]` and return its row and samples; running out of memory is a row.

    Anything else that the model raises is raised.
    """
    begin = time.perf_counter()
    row = Row(
        cell_id=cell.cell_id, axes=cell.axes, height_px=cell.height_px, width_px=cell.width_px,
        status=Status.OK, visual_tokens=cell.visual_tokens, prompt_tokens=fixed["prompt_tokens"],
        started_at=datetime.now(UTC).isoformat(timespec="seconds"), device=device_name,
    )  # fmt: skip
    samples: Samples = {}
    try:
        with torch.inference_mode():
            row, samples = _measure(row, fixed, board)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.print_exc()
        row = replace(
            row,
            status=Status.OOM,
            oom_stage=board.read().place,
            message=first_line(str(error)) or "MemoryError",
        )
    return replace(row, wall_s=time.perf_counter() - begin), samples


def _measure(row: Row, fixed: Mapping[str, Any], board: Board) -> tuple[Row, Samples]:
    device = torch.device(fixed["device"])
    baseline_rss_bytes = memory.rss_bytes()
    if fixed["memory_limit"]:
        limit_memory(fixed["memory_limit"], device)
    meter = memory.MemoryMeter(device)

    board.enter(Phase.BUILDING, "build")
    begin = time.perf_counter()
    vlm, preprocess = _build(row, fixed, device)
    build_s = time.perf_counter() - begin
    meter.reset()

    names = list(fixed["stages"])
    first_input = None if "preprocess" in names else preprocess()
    calls = {
        "preprocess": lambda _: preprocess(),
        "vision": vlm.encode_image,
        "connector": vlm.project,
        "prefill": vlm.prefill,
    }
    timeline = Timeline(
        [Stage(name, calls[name]) for name in names],
        device_clock(device, len(names)),
        first_input,
        on_stage=board.stage_marker(names),
    )

    board.enter(Phase.WARMING_UP, names[0], fixed["warm_up"])
    first_iteration_s, warnings = _warm_up(timeline, fixed["warm_up"], board)
    board.enter(Phase.MEASURING, names[0], fixed["iterations"])
    samples = timeline.sample(fixed["iterations"], board.count)
    peaks = meter.peaks()

    board.enter(Phase.READING_MEMORY, names[0])
    stage_peaks = _memory_pass(timeline, meter) if meter.tells_stages_apart else {}
    for reached in stage_peaks.values():
        peaks |= reached

    weight_bytes = vlm.weight_bytes()
    stages = {
        name: StageFigures(
            host_s=_mean(samples.host_s[name]),
            gpu_s=_mean(samples.gpu_s[name]),
            weight_bytes=weight_bytes.get(name),
            **asdict(stage_peaks.get(name, NO_PEAKS)),
        )
        for name in names
    }
    row = replace(
        row,
        stages=stages,
        end_to_end_s=_mean(samples.end_to_end_s),
        **asdict(peaks),
        baseline_rss_bytes=baseline_rss_bytes,
        nvml_process_bytes=memory.nvml_process_bytes(device),
        weight_bytes=sum(weight_bytes.values()),
        warm_up=fixed["warm_up"],
        iterations=fixed["iterations"],
        build_s=build_s,
        first_iteration_s=first_iteration_s,
        backends=dict(vlm.backends),
        warnings=tuple(warnings),
    )
    return row, samples.columns()


def _build(row: Row, fixed: Mapping[str, Any], device: torch.device) -> tuple[VLM, Preprocess]:
    axes = row.axes
    dtype = getattr(torch, str(axes["dtype"]))
    vlm = create_vlm(
        str(axes["backbone"]), str(axes["llm"]), str(axes["connector"]), device=device, dtype=dtype,
        height=row.height_px, width=row.width_px, levels=str(axes["levels"]),
        prompt_tokens=fixed["prompt_tokens"], logits=fixed["logits"], seed=fixed["seed"],
    )  # fmt: skip
    image = Path(fixed["image"]) if fixed["image"] else None
    preprocess = Preprocess(
        image, height=row.height_px, width=row.width_px, fit=fixed["fit"], device=device, dtype=dtype,
        batch_size=int(axes["batch_size"]), seed=fixed["seed"],
    )  # fmt: skip
    return vlm, preprocess


def _warm_up(timeline: Timeline, iterations: int, board: Board) -> tuple[float | None, list[str]]:
    """Discarded iterations. Returns the first one's latency and what was odd about the output."""
    first_iteration_s, warnings = None, []
    for n in range(iterations):
        board.count(n)
        elapsed_s, output = timeline.iterate()
        if n == 0:
            first_iteration_s = elapsed_s
            # the last position is enough: a NaN anywhere before it reaches it through attention
            if not bool(torch.isfinite(output[:, -1]).all()):
                warnings.append("the output holds values that are not finite")
        del output
    return first_iteration_s, warnings


def _memory_pass(timeline: Timeline, meter: memory.MemoryMeter) -> dict[str, memory.Peaks]:
    """The high-water mark of each stage, from one iteration with the marks lowered before each."""
    peaks = {}

    @contextmanager
    def around(stage: str) -> Iterator[None]:
        meter.reset()
        yield
        peaks[stage] = meter.stage_peaks()

    timeline.each_stage(around)
    return peaks


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
