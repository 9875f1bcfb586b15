"""What is looked at once a cell has been measured. It costs the cell nothing: a pass that fails is a warning.

memory     one iteration with the high-water marks lowered before each stage
profiler   one iteration under the profiler, for the time that the GPU was busy
counting   FLOPs and bytes of each stage, on tensors without data
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from vlmprof.cost.count import count_cell
from vlmprof.cost.scans import Kernels
from vlmprof.execution.board import Board, Phase
from vlmprof.execution.oom import is_out_of_memory
from vlmprof.execution.processes import first_line
from vlmprof.measure import memory
from vlmprof.measure.busy import BusyTimes, can_read_busy_times
from vlmprof.measure.timeline import Timeline
from vlmprof.plan import Cell
from vlmprof.settings import Settings


@dataclass
class Extras:
    """What the passes found, by stage, and what failed."""

    stage_peaks: dict[str, memory.Peaks] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    costs: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Turn whatever `what` raises into a warning."""
        try:
            yield
        except Exception as error:  # whatever a model or a profiler raises, the latencies still count
            traceback.print_exc()
            failed = "ran out of memory" if is_out_of_memory(error) else "failed"
            said = first_line(str(error)) or type(error).__name__
            self.warnings.append(f"measured, but {what} {failed}: {said}")


def run_passes(
    timeline: Timeline, meter: memory.MemoryMeter, device: torch.device, board: Board, *,
    graphs: bool, profile: bool, first_stage: str,
) -> Extras:  # fmt: skip
    """The passes that iterate once more."""
    extras = Extras()
    board.enter(Phase.READING_MEMORY, first_stage)
    # a graph took its memory while it was captured, and a replay shows none of it
    if meter.tells_stages_apart and not graphs:
        with extras.attempt("the pass for each stage's memory"):
            extras.stage_peaks = _memory_pass(timeline, meter)
    if profile and can_read_busy_times(device):
        board.enter(Phase.PROFILING, first_stage)
        with extras.attempt("the profiler's pass"):
            busy = BusyTimes()
            timeline.each_stage(busy.around)
            extras.busy_s = busy.known()
    return extras


def count(
    extras: Extras, cell: Cell, settings: Settings, backends: Mapping[str, str], device: torch.device
) -> None:
    """Add each stage's FLOPs and bytes by counting."""
    if cell.axes.vlm is not None:
        return
    kernels: Kernels = "triton" if backends.get("ss2d") == "triton" else "torch"
    with extras.attempt("counting its costs"):
        extras.costs = {
            name: {
                "counted_flops": cost.flops - cost.skipped_flops,
                "counted_bytes": cost.moved_bytes + (cost.slab_bytes if device.type != "cpu" else 0),
            }
            for name, cost in count_cell(cell, settings, kernels).stages.items()
        }


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
