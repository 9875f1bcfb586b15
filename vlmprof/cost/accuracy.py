"""Predictions for counted cells, and their errors against rows of the same cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmprof.backbones.catalog import axis_applies
from vlmprof.cost.calibration import Point
from vlmprof.cost.costs import CellCost
from vlmprof.cost.count import Counted
from vlmprof.cost.devices import DeviceSheet
from vlmprof.cost.roofline import CellEstimate, Efficiency, estimate
from vlmprof.plan import Cell
from vlmprof.records import Status, stage_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prediction:
    """The counted and the estimated cost of a cell."""

    cell: Cell
    cost: CellCost
    estimate: CellEstimate

    def figures(self) -> dict[str, float]:
        """Return the predicted values by column of a row."""
        predicted = {f"host_{stage}_s": e.host_s for stage, e in self.estimate.stages.items()}
        predicted |= {
            f"gpu_{stage}_s": e.gpu_s for stage, e in self.estimate.stages.items() if e.gpu_s is not None
        }
        predicted["end_to_end_s"] = self.estimate.end_to_end_s
        predicted["peak_allocated_bytes"] = float(self.estimate.peak_allocated_bytes)
        return predicted

    def row(self) -> dict[str, object]:
        """Return the prediction as a flat row of a run. A cell that does not fit is out of memory."""
        cell, oom_stage = self.cell, self.estimate.oom_stage
        facts: dict[str, object] = {
            "cell_id": cell.cell_id,
            **cell.axes.named,
            "height_px": cell.height_px,
            "width_px": cell.width_px,
            "status": Status.OK if oom_stage is None else Status.OOM,
            "oom_stage": oom_stage,
            "visual_tokens": self.cost.visual_tokens,
            "encoder_tokens": cell.encoder_tokens,
            "tiles": cell.tiles,
        }
        if oom_stage is not None:
            return facts
        weights = {stage_column("weight_bytes", name): s.weight_bytes for name, s in self.cost.stages.items()}
        decode = self.estimate.stages.get("decode")
        ttft_s = self.estimate.end_to_end_s - (decode.latency_s if decode else 0.0)
        return {**facts, **self.figures(), **weights, "ttft_s": ttft_s}


@dataclass(frozen=True)
class Miss:
    """Errors of the predictions of one figure for one backbone. Ratios are predicted / measured."""

    backbone: str
    figure: str
    points: int
    median_ratio: float
    """Median of the ratios: the systematic error."""
    median_factor: float
    """Median of max(ratio, 1 / ratio): the typical error in either direction."""
    worst_ratio: float
    worst_resolution: str


@dataclass(frozen=True)
class Achieved:
    """The rates of one measured stage: counted FLOPs and bytes divided by the measured latency."""

    cell: Cell
    stage: str
    latency_s: float
    flops_per_s: float
    """Without the FLOPs that causal attention kernels skip."""
    bytes_per_s: float
    """Of unfused operations. Values above the device's bandwidth indicate cache hits."""
    flops_share: float
    """Share of the dense rate of the cell's dtype."""
    bytes_share: float
    """Share of the bandwidth of the data sheet."""


def predict(
    counted: Sequence[Counted],
    device: DeviceSheet,
    efficiency: Efficiency | None = None,
    memory_limit_bytes: int | None = None,
) -> list[Prediction]:
    """Estimate counted cells on `device`, optionally with less memory."""
    return [
        Prediction(cell, cost, estimate(cost, device, efficiency, memory_limit_bytes, cell.axes.mode))
        for cell, cost in counted
    ]


def misses(predictions: Sequence[Prediction], frame: pd.DataFrame) -> list[Miss]:
    """Compare predictions with the `ok` rows of the same cells, by backbone and figure.

    Figures that were not measured are left out. On a CPU, where no allocator counts, the predicted peak is
    compared with the growth of the resident memory, as `peak_rss_bytes`.
    """
    ratios: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for prediction, row in _matched(predictions, frame):
        backbone, resolution = str(row["backbone"]), str(row["resolution"])
        for figure, predicted in prediction.figures().items():
            measured = _measured(row, figure)
            if measured is None and figure == "peak_allocated_bytes":
                figure, measured = "peak_rss_bytes", _resident_growth(row)
            if measured is not None and predicted > 0:
                ratios.setdefault((backbone, figure), []).append((predicted / measured, resolution))
    found = []
    for (backbone, figure), pairs in ratios.items():
        values = [ratio for ratio, _ in pairs]
        worst_ratio, worst_resolution = max(pairs, key=lambda pair: abs(math.log(pair[0])))
        typical = statistics.median(abs(math.log(ratio)) for ratio in values)
        found.append(
            Miss(
                backbone=backbone,
                figure=figure,
                points=len(pairs),
                median_ratio=statistics.median(values),
                median_factor=math.exp(typical),
                worst_ratio=worst_ratio,
                worst_resolution=worst_resolution,
            )
        )
    return found


def achieved(predictions: Sequence[Prediction], frame: pd.DataFrame, device: DeviceSheet) -> list[Achieved]:
    """Compute the FLOP/s and bytes per second of every measured stage, and their shares of the ceilings."""
    reached = []
    for prediction, row in _matched(predictions, frame):
        rate = device.rate(prediction.cell.axes.dtype)
        for stage, cost in prediction.cost.stages.items():
            latency_s = _measured(row, f"gpu_{stage}_s") or _measured(row, f"host_{stage}_s")
            if latency_s is not None:
                flops_per_s = (cost.flops - cost.skipped_flops) / latency_s
                bytes_per_s = cost.moved_bytes / latency_s
                reached.append(
                    Achieved(
                        cell=prediction.cell,
                        stage=stage,
                        latency_s=latency_s,
                        flops_per_s=flops_per_s,
                        bytes_per_s=bytes_per_s,
                        flops_share=flops_per_s / rate,
                        bytes_share=bytes_per_s / device.bandwidth_bytes_per_s,
                    )
                )
    return reached


def calibration_points(
    predictions: Sequence[Prediction],
    frame: pd.DataFrame,
    family: Callable[[str], str],
    least_prefill_tokens: int = 0,
) -> list[Point]:
    """Return measured stages with their costs: `vision` in the group of the backbone's family, the others in
    that of the LLM. `prefill` with fewer than `least_prefill_tokens` is left out.
    """
    points = []
    for prediction, row in _matched(predictions, frame):
        for stage, cost in prediction.cost.stages.items():
            host_s, gpu_s = (_measured(row, f"{clock}_{stage}_s") for clock in ("host", "gpu"))
            if stage == "prefill" and prediction.cost.visual_tokens < least_prefill_tokens:
                continue
            if host_s is not None or gpu_s is not None:
                group = family(str(row["backbone"])) if stage == "vision" else str(row["llm"])
                points.append(Point(group, cost, gpu_s, host_s))
    return points


def _matched(
    predictions: Sequence[Prediction], frame: pd.DataFrame
) -> Iterator[tuple[Prediction, dict[str, Any]]]:
    """Yield each prediction with the `ok` row that has the same values on all common axes that apply."""
    named = predictions[0].cell.axes.named if predictions else ()
    axes = [axis for axis in named if axis in frame.columns]

    def key(values: Mapping[Any, Any]) -> tuple[str, ...]:
        return tuple(str(values[axis]) for axis in axes if axis_applies(axis, str(values["backbone"])))

    rows = {key(row): row for row in frame.to_dict("records") if row["status"] == Status.OK}
    for prediction in predictions:
        row = rows.get(key(prediction.cell.axes.named))
        if row is not None:
            yield prediction, {str(column): value for column, value in row.items()}


def _measured(row: Mapping[str, Any], figure: str) -> float | None:
    value = _number(row.get(figure))
    return value if value is not None and value > 0 else None


def _resident_growth(row: Mapping[str, Any]) -> float | None:
    """Return by how much a process grew beyond its libraries: tensors, and allocations of libraries."""
    peak, baseline = (_number(row.get(name)) for name in ("peak_rss_bytes", "baseline_rss_bytes"))
    return None if peak is None or baseline is None or peak <= baseline else peak - baseline


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)
