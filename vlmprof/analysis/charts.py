"""The data of a report's other figures: stacked stages, launch-bound shares, fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from vlmprof.analysis.frames import Clock, Line, any_measured, clock_of, merges_tokens, numbers, ratio
from vlmprof.analysis.scaling import LLM_COLUMNS, Fit, fit_line, tokens_of
from vlmprof.analysis.series import FigureData, Unit, unit_of
from vlmprof.measure.statistics import Floats
from vlmprof.records import STAGES

LaunchMeasure = Literal["GPU waiting for launches", "host over GPU latency"]

_CURVE_POINTS = 16
"""Points of a fitted curve with linear spacing, and as many with logarithmic: smooth on both axes."""


@dataclass(frozen=True)
class StackedLine:
    """The stages of one line, arrays of shape (stages, cells); NaN where nothing was measured."""

    line: Line
    latency_s: Floats
    launch_bound: Floats
    """The launch-bound share of each stage, from 0 to 1."""


@dataclass(frozen=True)
class StageStacks:
    """Stage latencies by size, from the GPU's clock if there is one."""

    clock: Clock
    stages: Sequence[str]
    launch_measure: LaunchMeasure
    """The meaning of `launch_bound`: the first choice if a profiler pass recorded GPU busy times."""
    lines: Sequence[StackedLine]


def stage_stacks(frame: pd.DataFrame, lines: Sequence[Line]) -> StageStacks:
    """Return stage latencies and launch-bound shares for each line of a frame."""
    clock = clock_of(frame)
    stages = [stage for stage in STAGES if any_measured(frame, f"{clock}_{stage}_s")]
    busy = any(any_measured(frame, f"gpu_busy_{stage}_s") for stage in STAGES)
    share = gpu_waiting if busy else host_over_gpu
    stacked = [
        StackedLine(
            line,
            latency_s=_per_stage([line.measured(f"{clock}_{stage}_s") for stage in stages], line),
            launch_bound=_per_stage([share(line.rows, stage) for stage in stages], line),
        )
        for line in lines
    ]
    measure: LaunchMeasure = "GPU waiting for launches" if busy else "host over GPU latency"
    return StageStacks(clock, stages, measure, stacked)


def _per_stage(values: Sequence[Floats], line: Line) -> Floats:
    return np.array(values, dtype=np.float64).reshape(len(values), line.sizes.size)


def host_over_gpu(frame: pd.DataFrame, stage: str) -> Floats:
    """Return a stage's host latency divided by its GPU latency, per row."""
    return ratio(numbers(frame, f"host_{stage}_s"), numbers(frame, f"gpu_{stage}_s"))


def gpu_waiting(frame: pd.DataFrame, stage: str) -> Floats:
    """Return the share of a stage's GPU latency without a running kernel, per row."""
    busy = ratio(numbers(frame, f"gpu_busy_{stage}_s"), numbers(frame, f"gpu_{stage}_s"))
    return np.maximum(1 - busy, 0.0)


@dataclass(frozen=True)
class FittedCurve:
    """A fitted curve with its 95 % interval: arrays of shape (points,) in the panel's unit."""

    tokens: Floats
    values: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class FittedLine:
    """The measured cells of one line against their tokens, shape (cells,), with their fit."""

    line: Line
    fit: Fit
    tokens: Floats
    values: Floats
    size_labels: Sequence[str]

    @cached_property
    def curve(self) -> FittedCurve:
        """The fitted curve over the measured range of token counts."""
        ends = self.fit.tokens_low, self.fit.tokens_high
        spaced = [space(*ends, _CURVE_POINTS) for space in (np.geomspace, np.linspace)]
        tokens = np.unique(np.concatenate(spaced))
        at = [self.fit.at(count) for count in tokens.tolist()]
        values, low, high = np.array([(point.value, point.low, point.high) for point in at]).T
        return FittedCurve(tokens, values, low, high)


@dataclass(frozen=True)
class FittedPanel:
    """One column of a run against tokens."""

    column: str
    unit: Unit
    tokens: Literal["visual tokens", "encoder tokens"]
    lines: Sequence[FittedLine | None]
    """One entry for each line of the figure; None if a line has too few points for a fit."""


def fitted_panels(lines: Sequence[Line], columns: Iterable[str]) -> list[FittedPanel]:
    """Fit every line in each of the columns (latencies in seconds, memory in bytes); one panel per column."""
    merged = any(merges_tokens(line.rows) for line in lines)
    return [
        FittedPanel(
            column,
            unit_of(column),
            "encoder tokens" if merged and column not in LLM_COLUMNS else "visual tokens",
            [_fitted(line, column) for line in lines],
        )
        for column in columns
    ]


def _fitted(line: Line, column: str) -> FittedLine | None:
    fit = fit_line(line, column)
    if fit is None:
        return None
    values = line.measured(column)
    known = np.isfinite(values)
    labels = [label for label, is_known in zip(line.size_labels, known, strict=True) if is_known]
    return FittedLine(line, fit, tokens_of(line, column)[known], values[known], labels)


@dataclass(frozen=True)
class Charts:
    """The data of all figures of a report."""

    scaling: FigureData
    stacks: StageStacks
    fits: Sequence[FittedPanel]
