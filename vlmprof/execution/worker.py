"""One cell, in its own process: build the model, warm up, measure, read the memory.

build -> first iteration -> warm-up -> measured iterations -> row -> extra passes -> the row, completed
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import torch

from vlmprof.execution.board import Board, Phase
from vlmprof.execution.chain import attention_backend, build_chain, state_bytes
from vlmprof.execution.extra_passes import Extras, count, run_passes
from vlmprof.execution.limits import limit_memory
from vlmprof.execution.modes import CompileTime, quiet_autograd
from vlmprof.execution.oom import is_out_of_memory
from vlmprof.execution.processes import first_line
from vlmprof.measure import memory
from vlmprof.measure.cache import CacheFlush
from vlmprof.measure.clocks import device_clock, make_current
from vlmprof.measure.statistics import oddities
from vlmprof.measure.stopping import Adaptive, FixedCount, Settling, StoppingRule
from vlmprof.measure.timeline import Timeline
from vlmprof.plan import Cell
from vlmprof.records import Row, StageFigures, Status
from vlmprof.settings import Settings
from vlmprof.store import Samples

SETTLING_SHARE = 1 / 3
"""Of the budget for measuring: so long it may take to settle, though never longer than `Settling` allows."""

NO_PEAKS = memory.Peaks(None, None, None)


Measured = tuple[Row, Samples]


def run_cell(
    cell: Cell, settings: Settings, device_name: str, board: Board
) -> Generator[Measured, None, Measured]:
    """Measure `cell` on `settings.device`: its row and samples as soon as there are any, then the whole row.

    Running out of memory is a row; anything else that the model raises is raised.
    """
    begin = time.perf_counter()
    row = Row(
        cell_id=cell.cell_id, axes=cell.axes.named, height_px=cell.height_px, width_px=cell.width_px,
        status=Status.OK, visual_tokens=cell.visual_tokens, prompt_tokens=settings.prompt_tokens,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"), device=device_name,
    )  # fmt: skip
    samples: Samples = {}
    try:
        with attention_backend(cell.axes, settings.device):
            row, samples = yield from _measure(row, cell, settings, board)
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


def _measure(row: Row, cell: Cell, settings: Settings, board: Board) -> Generator[Measured, None, Measured]:
    device = torch.device(settings.device)
    make_current(device)
    baseline_rss_bytes = memory.rss_bytes()
    if settings.memory_limit_bytes:
        limit_memory(settings.memory_limit_bytes, device)
    meter = memory.MemoryMeter(device)
    names = list(settings.stages)

    board.enter(Phase.BUILDING, "build")
    begin = time.perf_counter()
    chain = build_chain(cell.axes, (row.height_px, row.width_px), settings, device)
    build_s = time.perf_counter() - begin
    meter.reset()
    timeline = Timeline(
        chain.stages,
        device_clock(device, len(names)),
        chain.first_input,
        board.stage_marker(names),
        CacheFlush(device) if cell.axes.cache == "cold" else lambda: None,
        keep_output=settings.outputs == "kept",
    )

    rule = _stopping_rule(settings, names, device)
    compiling = CompileTime(cell.axes.mode)
    with quiet_autograd(cell.axes.mode), compiling:
        board.enter(Phase.WARMING_UP, names[0], settings.warm_up or 0)
        settling = Settling(budget_s=min(Settling.budget_s, settings.budget_s * SETTLING_SHARE))
        warm_up = _warm_up(timeline, settings.warm_up, settling, board)
        board.enter(Phase.MEASURING, names[0], settings.iterations or 0)
        samples = timeline.sample(rule, board.count).columns()
        peaks = meter.peaks()
        measured = replace(
            row,
            visual_tokens=chain.visual_tokens or row.visual_tokens,
            end_to_end_s=_mean(samples["end_to_end_s"]),
            baseline_rss_bytes=baseline_rss_bytes,
            nvml_process_bytes=memory.nvml_process_bytes(device),
            weight_bytes=sum(chain.weight_bytes.values()),
            cache_bytes=warm_up.cache_bytes,
            warm_up=warm_up.iterations,
            iterations=len(samples["end_to_end_s"]),
            build_s=build_s,
            first_iteration_s=warm_up.first_iteration_s,
            compile_s=compiling.total_s,
            backends=dict(chain.backends),
            warnings=(
                *chain.warnings,
                *warm_up.warnings,
                *rule.unmet(samples),
                *_oddities(samples, rule_columns(names, device)),
            ),
        )

        def completed(extras: Extras) -> Row:
            reached = peaks
            for of_stage in extras.stage_peaks.values():
                reached |= of_stage
            whole = replace(
                measured,
                stages=_stages(names, samples, chain.weight_bytes, extras),
                **asdict(reached),
                warnings=(*measured.warnings, *extras.warnings),
            )
            return _with_token_times(whole, samples, settings.new_tokens, cell.axes.batch_size)

        # what follows may end this process, and must not take the measurement along
        yield completed(Extras()), samples
        extras = run_passes(
            timeline, meter, device, board,
            graphs=cell.axes.mode == "graphs", profile=settings.profile, first_stage=names[0],
        )  # fmt: skip
    count(extras, cell, settings, chain.backends, device)
    return completed(extras), samples


def _stages(
    names: Sequence[str], samples: Samples, weight_bytes: Mapping[str, int], extras: Extras
) -> dict[str, StageFigures]:
    return {
        name: _with_rates(
            StageFigures(
                host_s=_mean(samples[f"host_{name}_s"]),
                gpu_s=_mean(samples.get(f"gpu_{name}_s", [])),
                gpu_busy_s=extras.busy_s.get(name),
                **extras.costs.get(name, {}),
                weight_bytes=weight_bytes.get(name),
                **asdict(extras.stage_peaks.get(name, NO_PEAKS)),
            )
        )
        for name in names
    }


@dataclass(frozen=True)
class WarmUp:
    """What the discarded iterations showed."""

    iterations: int
    first_iteration_s: float | None
    cache_bytes: int | None
    warnings: tuple[str, ...]


def _warm_up(timeline: Timeline, count: int | None, settling: Settling, board: Board) -> WarmUp:
    """So many discarded iterations, or as many as it takes to settle."""
    end_to_end_s: list[float] = []
    cache_bytes, warnings = None, []
    while len(end_to_end_s) < count if count is not None else not settling.enough(end_to_end_s):
        board.count(len(end_to_end_s))
        elapsed_s, output = timeline.iterate()
        if not end_to_end_s:
            cache_bytes = state_bytes(output)
            # the last position is enough: through causal attention it has seen all others
            if isinstance(output, torch.Tensor) and not bool(torch.isfinite(output[:, -1]).all()):
                warnings.append("the output holds values that are not finite")
        del output
        end_to_end_s.append(elapsed_s)
    if count is None and not settling.settled(end_to_end_s):
        spent_s = sum(end_to_end_s[1:])
        warnings.append(f"still not settled after {len(end_to_end_s)} warm-up iterations in {spent_s:.3g} s")
    first_iteration_s = end_to_end_s[0] if end_to_end_s else None
    return WarmUp(len(end_to_end_s), first_iteration_s, cache_bytes, tuple(warnings))


def rule_columns(names: Sequence[str], device: torch.device) -> tuple[str, ...]:
    """The latencies that a figure shows, on the clock that tells most: what sampling must make precise."""
    clock = "host" if device.type == "cpu" else "gpu"
    shown = [name for name in ("vision", "prefill", "decode") if name in names]
    return (*(f"{clock}_{name}_s" for name in shown), "end_to_end_s")


def _stopping_rule(settings: Settings, names: Sequence[str], device: torch.device) -> StoppingRule:
    if settings.sampling == "fixed":
        assert settings.iterations is not None  # `spec` fills in what a fixed protocol leaves open
        return FixedCount(settings.iterations)
    return Adaptive(
        watched=rule_columns(names, device),
        target=settings.target,
        budget_s=settings.budget_s,
        least_s=settings.least_s,
        most=settings.iterations or Adaptive.most,
    )


def _oddities(samples: Samples, columns: Sequence[str]) -> list[str]:
    return [f"{column} {said}" for column in columns for said in oddities(samples[column])]


def _with_rates(figures: StageFigures) -> StageFigures:
    """The figures of a stage with the rates that its counted work and its latency make."""
    latency_s = figures.gpu_s or figures.host_s
    if not latency_s or figures.counted_flops is None or figures.counted_bytes is None:
        return figures
    return replace(
        figures,
        achieved_flops_per_s=figures.counted_flops / latency_s,
        achieved_bytes_per_s=figures.counted_bytes / latency_s,
    )


def _with_token_times(row: Row, samples: Samples, new_tokens: int, batch_size: int) -> Row:
    """TTFT, TPOT and tokens per second of a decode stage, by the device's clock where it has one."""
    decode_s = samples.get("gpu_decode_s") or samples.get("host_decode_s")
    if not decode_s:
        return row
    first_token_s = [whole - part for whole, part in zip(samples["end_to_end_s"], decode_s, strict=True)]
    tpot_s = sum(decode_s) / len(decode_s) / new_tokens
    return replace(
        row,
        ttft_s=_mean(first_token_s),
        tpot_s=tpot_s,
        decode_tokens_per_s=batch_size / tpot_s,
        new_tokens=new_tokens,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
