"""What a report draws in addition to the scaling figure: stacked stages, launch-bound shares, fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.frames import Line, any_measured, numbers
from vlmprof.analysis.scaling import Fit, fit_line
from vlmprof.analysis.series import FigureData, Unit, unit_of
from vlmprof.records import STAGES

Floats = npt.NDArray[np.float64]

LaunchMeasure = Literal["GPU waiting for launches", "host over GPU latency"]

_CURVE_POINTS = 16
"""Points of a fitted curve that are evenly spaced, and as many in the logarithm: smooth on either axis."""


@dataclass(frozen=True)
class StackedLine:
    """The stages of one line, arrays of shape (stages, cells); NaN where nothing was measured."""

    line: Line
    latency_s: Floats
    launch_bound: Floats
    """The launch-bound share of each stage, 1.0 being all of it."""


@dataclass(frozen=True)
class StageStacks:
    """Stage latencies by resolution, by the GPU's clock where there is one."""

    clock: Literal["host", "gpu"]
    stages: Sequence[str]
    launch_measure: LaunchMeasure
    """What `launch_bound` is: the first where a profiled pass saw when the GPU was busy."""
    lines: Sequence[StackedLine]


def stage_stacks(frame: pd.DataFrame, lines: Sequence[Line]) -> StageStacks:
    """Stage latencies and launch-bound shares of each line of a frame."""
    clock: Literal["host", "gpu"] = (
        "gpu" if any(any_measured(frame, f"gpu_{stage}_s") for stage in STAGES) else "host"
    )
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
    return np.array(values, dtype=np.float64).reshape(len(values), line.pixels.size)


def host_over_gpu(frame: pd.DataFrame, stage: str) -> Floats:
    """Host over GPU latency of a stage, per row."""
    return numbers(frame, f"host_{stage}_s") / numbers(frame, f"gpu_{stage}_s")


def gpu_waiting(frame: pd.DataFrame, stage: str) -> Floats:
    """The share of a stage's GPU latency in which no kernel ran, per row."""
    return np.maximum(1 - numbers(frame, f"gpu_busy_{stage}_s") / numbers(frame, f"gpu_{stage}_s"), 0.0)


@dataclass(frozen=True)
class FittedCurve:
    """A fitted curve with the ends of its 95 % interval, arrays of shape (points,), in the panel's unit."""

    tokens: Floats
    values: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class FittedLine:
    """The measured cells of one line over their visual tokens, shape (cells,), and the fit to them."""

    line: Line
    fit: Fit
    tokens: Floats
    values: Floats
    resolutions: Sequence[str]

    @cached_property
    def curve(self) -> FittedCurve:
        """The fit over the range of token counts that was fitted."""
        ends = self.fit.tokens_low, self.fit.tokens_high
        spaced = [space(*ends, _CURVE_POINTS) for space in (np.geomspace, np.linspace)]
        tokens = np.unique(np.concatenate(spaced))
        at = [self.fit.at(count) for count in tokens.tolist()]
        values, low, high = np.array([(point.value, point.low, point.high) for point in at]).T
        return FittedCurve(tokens, values, low, high)


@dataclass(frozen=True)
class FittedPanel:
    """One column of a run over visual tokens."""

    column: str
    unit: Unit
    lines: Sequence[FittedLine | None]
    """For each line of the figure, None where it has too few points for a fit."""


def fitted_panels(lines: Sequence[Line], columns: Iterable[str]) -> list[FittedPanel]:
    """A panel for each of the columns (latencies in seconds, memory in bytes), every line fitted once."""
    return [
        FittedPanel(column, unit_of(column), [_fitted(line, column) for line in lines]) for column in columns
    ]


def _fitted(line: Line, column: str) -> FittedLine | None:
    fit = fit_line(line, column)
    if fit is None:
        return None
    values = line.measured(column)
    known = np.isfinite(values)
    resolutions = [label for label, is_known in zip(line.resolutions, known, strict=True) if is_known]
    return FittedLine(line, fit, line.measured("visual_tokens")[known], values[known], resolutions)


@dataclass(frozen=True)
class Charts:
    """Everything that a report draws."""

    scaling: FigureData
    stacks: StageStacks
    fits: Sequence[FittedPanel]
