"""Measurement of a pipeline of callables.

first iteration   warm-up     | measured iterations       | memory pass       profiler pass
compiles, tunes   discarded   | samples, high-water marks | peaks by stage    GPU busy times

`timeline` shows a single iteration. Each pass runs one more iteration after the measurement and cannot spoil
it: a pass that fails becomes a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import torch

from vlmprof.errors import message_of
from vlmprof.measure.busy import BusyTimes, can_read_busy_times
from vlmprof.measure.cache import CacheFlush
from vlmprof.measure.clocks import device_clock
from vlmprof.measure.memory import NO_PEAKS, MemoryMeter, Peaks, nvml_process_bytes
from vlmprof.measure.observer import Observer, Phase
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.measure.samples import Samples
from vlmprof.measure.statistics import distribution_warnings
from vlmprof.measure.stopping import Adaptive, FixedCount, Settling, StoppingRule
from vlmprof.measure.timeline import Stage, StageGroup, Timeline, stage_names

logger = logging.getLogger(__name__)

Callables = Mapping[str, Callable[[Any], Any]] | Sequence[Stage | StageGroup]
"""A pipeline: callables by stage name, or stages. Each receives the output of the previous one."""


@dataclass(frozen=True, kw_only=True)
class MeasurementProtocol:
    """Protocol for measuring a pipeline."""

    warm_up: int | Settling = field(default_factory=Settling)
    """Discarded iterations: a number, or until latencies settle. At least one is discarded, because the first
    may compile and tune."""
    stopping: StoppingRule = field(default_factory=lambda: Adaptive(watched=("end_to_end_s",)))
    judged: tuple[str, ...] = ("end_to_end_s",)
    """Sample columns to check for drift, bimodality and jitter."""
    cold_cache: bool = False
    """Whether to flush the device's caches before every iteration."""
    keep_output: bool = False
    """Whether to keep the output of an iteration alive until the end of the next one."""
    stage_memory: bool = True
    """Whether to read each stage's peak memory in an additional iteration."""
    profile: bool = True
    """Whether to run an additional iteration under the profiler, if it supports the device."""


@dataclass(frozen=True)
class Measurement:
    """The result of measuring a pipeline."""

    samples: Samples
    """Raw latencies in seconds."""
    warm_up_iterations: int
    first_iteration_s: float
    """End-to-end latency of the first warm-up iteration, including compilation."""
    first_output: Any
    """The result of `inspect` on the output of that iteration."""
    peaks: Peaks = NO_PEAKS
    """Peak memory over all iterations."""
    nvml_process_bytes: int | None = None
    """Memory of the process as reported by the NVIDIA driver."""
    stage_peaks: Mapping[str, Peaks] = field(default_factory=dict)
    """Peak memory during each stage; empty if the system cannot measure it."""
    gpu_busy_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds with a kernel running in the profiled iteration, by stage; empty without one."""
    warnings: tuple[str, ...] = ()

    @property
    def iterations(self) -> int:
        """The number of measured iterations."""
        return len(self.samples.end_to_end_s)


def measure(
    pipeline: Callables,
    protocol: MeasurementProtocol | None = None,
    *,
    first_input: Any = None,
    device: torch.device | str = "cpu",
) -> Measurement:
    """Measure a pipeline of callables in this process.

    The autograd mode is left unchanged: wrap the call in `torch.inference_mode()` to time inference.

    Args:
        pipeline: Callables by stage name, run in order; each receives the output of the previous one.
        protocol: When to start, when to stop, and what else to measure; by default, until the end-to-end
            median is known to within 1 %.
        first_input: Argument of the first stage in every iteration.
        device: The device that the callables run on, which determines the clocks and memory figures.

    Raises ValueError or TypeError for a pipeline, protocol or device (`mps`) that cannot be measured, before
    anything runs. Errors raised by the callables propagate.

    >>> protocol = MeasurementProtocol(warm_up=2, stopping=FixedCount(5))
    >>> calls = {"square": lambda x: x @ x, "sum": torch.sum}
    >>> measurement = measure(calls, protocol, first_input=torch.ones(64, 64))
    >>> sorted(measurement.samples)
    ['end_to_end_s', 'host_square_s', 'host_sum_s']
    >>> len(measurement.samples.host_s["square"]), measurement.peaks.peak_rss_bytes > 0
    (5, True)
    """
    protocol = protocol or MeasurementProtocol()
    *_, complete = measure_in_steps(pipeline, protocol, first_input=first_input, device=device)
    return complete


def measure_in_steps(
    pipeline: Callables,
    protocol: MeasurementProtocol,
    *,
    first_input: Any,
    device: torch.device | str,
    observer: Observer = Observer(),
    inspect: Callable[[Any], Any] = lambda output: None,
) -> Iterator[Measurement]:
    """Measure as in `measure`, but yield the measurement before each additional pass and at the end.

    A pass may kill the process, and the measurement must survive that. `observer` is notified of what is
    running; `inspect` receives the output of the first warm-up iteration.
    """
    device = torch.device(device)
    stages = [Stage(*each) for each in pipeline.items()] if isinstance(pipeline, Mapping) else pipeline
    names = stage_names(stages)
    _check_columns(protocol, names, device)
    clock = device_clock(device, len(names))
    meter = MemoryMeter(device)
    meter.reset()
    timeline = Timeline(
        stages,
        clock,
        first_input,
        observer.stage_marker(names),
        CacheFlush(device) if protocol.cold_cache else lambda: None,
        keep_output=protocol.keep_output,
    )
    measurement = _measured(timeline, protocol, observer, names[0], inspect)
    measurement = replace(measurement, peaks=meter.peaks(), nvml_process_bytes=nvml_process_bytes(device))
    yield measurement
    passes: list[tuple[Phase, str, Callable[[Measurement], Measurement]]] = []
    if protocol.stage_memory and meter.resets_between_stages:
        read = partial(_with_stage_peaks, timeline=timeline, meter=meter)
        passes.append((Phase.READING_MEMORY, "the pass for each stage's memory", read))
    if protocol.profile and can_read_busy_times(device):
        passes.append((Phase.PROFILING, "the profiler's pass", partial(_with_busy_times, timeline=timeline)))
    for phase, name, look in passes:
        observer.enter(phase, names[0])
        try:
            measurement = look(measurement)
        except Exception as error:  # whatever a pass raises, the latencies are valid
            measurement = replace(measurement, warnings=(*measurement.warnings, failed_pass(name, error)))
        yield measurement


def _check_columns(protocol: MeasurementProtocol, names: Sequence[str], device: torch.device) -> None:
    """Raise ValueError if the protocol needs sample columns that the pipeline has not on this device."""
    clocks = ("host",) if device.type == "cpu" else ("host", "gpu")
    columns = [*(f"{clock}_{name}_s" for clock in clocks for name in names), "end_to_end_s"]
    watched = protocol.stopping.watched if isinstance(protocol.stopping, Adaptive) else ()
    for column in (*watched, *protocol.judged):
        if column not in columns:
            raise ValueError(f"no column {column!r} on {device}; its columns are {', '.join(columns)}")


def failed_pass(name: str, error: Exception) -> str:
    """Return the warning for a pass after the measurement that raised `error`."""
    logger.warning("%s failed", name, exc_info=error)
    failed = "ran out of memory" if is_out_of_memory(error) else "failed"
    return f"measured, but {name} {failed}: {message_of(error)}"


def _measured(
    timeline: Timeline,
    protocol: MeasurementProtocol,
    observer: Observer,
    first_stage: str,
    inspect: Callable[[Any], Any],
) -> Measurement:
    """Warm up and sample; the result has no memory figures yet."""
    warm_up, stopping = protocol.warm_up, protocol.stopping
    observer.enter(Phase.WARMING_UP, first_stage, warm_up if isinstance(warm_up, int) else 0)
    warm_up_s: list[float] = []
    first_output, warnings = None, []
    while not warm_up_s or not _is_warm(warm_up, warm_up_s):
        observer.count(len(warm_up_s))
        elapsed_s, output = timeline.iterate()
        if not warm_up_s:
            first_output = inspect(output)
        del output
        warm_up_s.append(elapsed_s)
    if warm_up == 0:
        warnings.append(
            "a first iteration was discarded despite warm_up 0, since it may compile and allocate"
        )
    if isinstance(warm_up, Settling) and not warm_up.settled(warm_up_s):
        spent_s = sum(warm_up_s[1:])
        warnings.append(f"still not settled after {len(warm_up_s)} warm-up iterations in {spent_s:.3g} s")
    logger.info("warmed up in %d iterations, %.3g s", len(warm_up_s), sum(warm_up_s))
    observer.enter(
        Phase.MEASURING, first_stage, stopping.iterations if isinstance(stopping, FixedCount) else 0
    )
    samples = timeline.sample(stopping, observer.count)
    logger.info("measured %d iterations in %.3g s", len(samples.end_to_end_s), sum(samples.end_to_end_s))
    warnings += stopping.unmet(samples)
    for column in protocol.judged:
        warnings += [f"{column} {words}" for words in distribution_warnings(samples[column])]
    return Measurement(
        samples=samples,
        warm_up_iterations=len(warm_up_s),
        first_iteration_s=warm_up_s[0],
        first_output=first_output,
        warnings=tuple(warnings),
    )


def _is_warm(warm_up: int | Settling, warm_up_s: Sequence[float]) -> bool:
    return warm_up.enough(warm_up_s) if isinstance(warm_up, Settling) else len(warm_up_s) >= warm_up


def _with_stage_peaks(measurement: Measurement, timeline: Timeline, meter: MemoryMeter) -> Measurement:
    """Run an iteration that resets and reads the high-water marks around each stage."""
    stage_peaks = {}

    @contextmanager
    def around(stage: str) -> Iterator[None]:
        meter.reset()
        yield
        stage_peaks[stage] = meter.stage_peaks()

    timeline.each_stage(around)
    reached = reduce(or_, stage_peaks.values(), measurement.peaks)
    return replace(measurement, stage_peaks=stage_peaks, peaks=reached)


def _with_busy_times(measurement: Measurement, timeline: Timeline) -> Measurement:
    """Run an iteration under the profiler."""
    busy = BusyTimes()
    timeline.each_stage(busy.around)
    return replace(measurement, gpu_busy_s=busy.known())
