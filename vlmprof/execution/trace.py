"""Traces of one iteration of a cell: a timeline for TensorBoard and Perfetto, and its operators by stage.

The profiler slows execution down, so traced iterations are never measured. Stages and the modules of the
vision backbone are annotated by name, so that a timeline reads `vision > layers.0 > blocks.1`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, supported_activities

from vlmprof.execution.kernel_table import OperatorTime
from vlmprof.execution.modes import attention_backend, quiet_autograd
from vlmprof.execution.pipelines import build_pipeline
from vlmprof.execution.status_board import StatusBoard
from vlmprof.measure.clocks import device_clock, make_current
from vlmprof.measure.observer import Phase
from vlmprof.measure.timeline import Mark, Stage, StageGroup, Timeline, single_stage
from vlmprof.plan import Cell
from vlmprof.settings import Settings

WARM_UP = 3
DEEPEST = 3
"""Largest number of dots in the name of an annotated module: `layers.0.blocks.1` has three."""


def trace_cell(cell: Cell, settings: Settings, folder: Path, board: StatusBoard) -> list[OperatorTime]:
    """Trace one iteration of `cell` after a short warm-up; return the operators of each stage, longest first.

    Writes `folder/<cell id>.<number>.pt.trace.json`, which torch-tb-profiler and Perfetto both read. Raises
    whatever the model raises.
    """
    device = torch.device(settings.device)
    make_current(device)
    board.enter(Phase.BUILDING, "build")
    pipeline = build_pipeline(cell.axes, (cell.height_px, cell.width_px), settings, device)
    names = list(settings.stages)
    annotated = [_annotated_stages(stage) for stage in pipeline.stages]
    timeline = Timeline(
        annotated, device_clock(device, len(names)), pipeline.first_input, board.stage_marker(names)
    )
    handler = torch.profiler.tensorboard_trace_handler(str(folder), worker_name=cell.cell_id)
    mode = cell.axes.mode
    with quiet_autograd(mode), attention_backend(cell.axes, device):
        board.enter(Phase.WARMING_UP, names[0], WARM_UP)
        for n in range(WARM_UP):
            board.count(n)
            timeline.iterate()
        board.enter(Phase.PROFILING, names[0])
        # hooks would break compiled or captured graphs, and overlap with the hooks of a VLM from transformers
        alone = mode == "eager" and cell.axes.vlm is None
        annotate = _annotated_modules(pipeline.vision) if alone else nullcontext()
        activities = supported_activities() & {
            ProfilerActivity.CPU,
            ProfilerActivity.CUDA,
            ProfilerActivity.XPU,
        }
        with (
            annotate,
            profile(
                activities=activities, profile_memory=True, record_shapes=True, on_trace_ready=handler
            ) as records,
        ):
            timeline.iterate()
    return _by_stage(records.events(), names)


def _annotated_stages(stage: Stage | StageGroup) -> StageGroup:
    """Wrap the stages so that each is annotated with its name in a trace."""
    stages = single_stage(stage) if isinstance(stage, Stage) else stage
    scopes: dict[str, Any] = {}

    def run(value: Any, begin: Mark, end: Mark) -> Any:
        def enter(name: str) -> None:
            begin(name)
            scopes[name] = record_function(name)
            scopes[name].__enter__()

        def leave(name: str) -> None:
            scopes.pop(name).__exit__(None, None, None)
            end(name)

        return stages.run(value, enter, leave)

    return StageGroup(stages.names, run)


@contextmanager
def _annotated_modules(module: nn.Module) -> Iterator[None]:
    """Annotate the submodules with their names in traces taken in this context."""
    handles, open_ranges = [], []

    def enter(name: str) -> Any:
        def hook(part: nn.Module, inputs: Any) -> None:
            scope = record_function(name)
            scope.__enter__()
            open_ranges.append(scope)

        return hook

    def leave(part: nn.Module, inputs: Any, output: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    for name, part in module.named_modules():
        if name and name.count(".") <= DEEPEST and not isinstance(part, nn.ModuleList | nn.Identity):
            handles.append(part.register_forward_pre_hook(enter(name)))
            handles.append(part.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_stage(events: Any, stages: Sequence[str]) -> list[OperatorTime]:
    """Return the operators below each stage's annotation, with own host time and kernel time."""
    found: list[OperatorTime] = []
    for stage in stages:
        host_us: defaultdict[str, float] = defaultdict(float)
        device_us: defaultdict[str, float] = defaultdict(float)
        calls: defaultdict[str, int] = defaultdict(int)
        pending = [event for event in events if event.name == stage and event.cpu_parent is None]
        while pending:
            event = pending.pop()
            pending += event.cpu_children
            if event.name != stage and not event.is_user_annotation:
                calls[event.name] += 1
                host_us[event.name] += event.self_cpu_time_total
                device_us[event.name] += sum(kernel.duration for kernel in event.kernels)
        found += sorted(
            (OperatorTime(stage, n, calls[n], host_us[n] * 1e-6, device_us[n] * 1e-6) for n in calls),
            key=lambda operator: -(operator.gpu_s or operator.host_s),
        )
    return found
