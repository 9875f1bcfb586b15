"""Fit of the efficiency constants to measured stages, with leave-one-group-out cross-validation.

The error of a prediction is |ln(predicted / measured)|, so that half and double are equally wrong. All groups
have the same weight, whatever their number of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmprof.cost.costs import Kind, StageCost
from vlmprof.cost.devices import DeviceSheet
from vlmprof.cost.roofline import Efficiency, StageEstimate, estimate_stage

STEPS = (2.0, 1.4, 1.18, 1.08, 1.03, 1.01)
"""Factors by which the descent changes constants, from coarse to fine."""

BOUNDS = {
    "matmul": (0.4, 0.8),
    "attention": (0.2, 0.75),
    "bandwidth": (0.5, 0.95),
    "scan": (0.02, 1.0),
    "kernel_s": (1.5e-6, 5e-6),
    "host_s_per_kernel": (1e-6, 1e-4),
    "queued_kernels": (100.0, 2000.0),
}
"""Physically plausible range of each constant. On Hopper, large matrix products reach 0.6 to 0.75 of the
dense rate, FlashAttention-2 about 0.35 and FlashAttention-3 0.75 (arXiv 2407.08608, figure 5); copies reach
0.9 of the bandwidth, and an empty kernel takes 2 to 3 µs. Without bounds, the fit trades one constant for
another: its error is a quarter smaller, but matrix products come out at the full rate of the data sheet."""


@dataclass(frozen=True)
class Point:
    """One measured stage with its counted cost."""

    group: str
    """Points that cross-validation leaves out together: a backbone family, or the language model."""
    cost: StageCost
    gpu_s: float | None
    host_s: float | None


@dataclass(frozen=True)
class GroupError:
    """Errors of the predictions for one group: medians over its points, as factors of at least 1."""

    group: str
    points: int
    fitted: float
    """With constants fitted to all groups."""
    left_out: float
    """With constants fitted to all other groups."""


def fit(points: Sequence[Point], device: DeviceSheet, start: Efficiency | None = None) -> Efficiency:
    """Fit the constants by coordinate descent from `start`, minimizing the mean error over groups.

    A constant that no point depends on keeps its initial value. Raises `ValueError` without points.
    """
    if not points:
        raise ValueError("nothing to fit to")
    system = _System(points, device)
    best = start or Efficiency()
    error = system.error(best)
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for name, (least, most) in BOUNDS.items():
                for factor in (step, 1 / step):
                    tried = replace(best, **{name: min(most, max(least, getattr(best, name) * factor))})
                    tried_error = system.error(tried)
                    if tried_error < error - 1e-9:
                        best, error, improved = tried, tried_error, True
    return best


def leave_one_group_out(
    points: Sequence[Point], device: DeviceSheet, everything: Efficiency | None = None
) -> list[GroupError]:
    """Return the error on each group with constants fitted to all groups, `everything`, and to the others."""
    everything = everything or fit(points, device)
    errors = []
    for group in dict.fromkeys(point.group for point in points):
        inside = [point for point in points if point.group == group]
        outside = [point for point in points if point.group != group]
        unseen = fit(outside, device) if outside else Efficiency()
        errors.append(
            GroupError(
                group,
                len(inside),
                _median_factor(inside, device, everything),
                _median_factor(inside, device, unseen),
            )
        )
    return errors


def _median_factor(points: Sequence[Point], device: DeviceSheet, efficiency: Efficiency) -> float:
    logs = []
    for point in points:
        predicted = estimate_stage(point.cost, device, efficiency)
        logs += [abs(np.log(p / m)) for p, m in _pairs(point, predicted)]
    return float(np.exp(np.median(logs)))


def _pairs(point: Point, predicted: StageEstimate) -> list[tuple[float, float]]:
    pairs = [(predicted.gpu_s, point.gpu_s), (predicted.host_s, point.host_s)]
    return [(p, m) for p, m in pairs if p is not None and m is not None and m > 0]


class _System:
    """The points as arrays, to evaluate constants in microseconds instead of milliseconds.

    Computes the same as `roofline.op_seconds`, as a test verifies.
    """

    def __init__(self, points: Sequence[Point], device: DeviceSheet) -> None:
        rows = [(i, op, n) for i, point in enumerate(points) for op, n in point.cost.ops.items()]
        self._point = np.array([i for i, _, _ in rows])
        self._points = len(points)
        self._count = np.array([n for _, _, n in rows], dtype=np.float64)
        self._kernels = np.array([op.kernels for _, op, _ in rows], dtype=np.float64)
        self._bytes_s = np.array([op.moved_bytes for _, op, _ in rows]) / device.bandwidth_bytes_per_s
        self._special_s = (
            np.array([op.special_functions for _, op, _ in rows]) / device.special_functions_per_s
        )
        kinds = np.array([str(op.kind) for _, op, _ in rows])
        self._scan, self._fused_scan = kinds == Kind.SCAN, kinds == Kind.FUSED_SCAN
        self._quantized_call = kinds == Kind.QUANTIZED_CALL
        self._attention = kinds == Kind.ATTENTION
        self._matmul = np.isin(kinds, (str(Kind.MATMUL), str(Kind.CONVOLUTION)))
        matrix = self._matmul | self._attention
        flops = np.array([op.flops - op.skipped_flops for _, op, _ in rows], dtype=np.float64)
        rates = np.array(
            [device.rate(op.dtype) if m else 1.0 for (_, op, _), m in zip(rows, matrix, strict=True)]
        )
        self._flops_s = np.where(matrix, flops / rates, 0.0)
        self._plain = ~(matrix | self._scan | self._fused_scan)
        self._gpu = np.array([point.gpu_s or np.nan for point in points], dtype=np.float64)
        self._host = np.array([point.host_s or np.nan for point in points], dtype=np.float64)
        groups = [point.group for point in points]
        self._groups = [np.array([g == group for g in groups]) for group in dict.fromkeys(groups)]

    def predict(self, e: Efficiency) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Predict the GPU and host latency of every point."""
        ceiling = np.where(self._plain, self._special_s, 0.0)
        ceiling = np.where(self._matmul, self._flops_s / e.matmul, ceiling)
        ceiling = np.where(self._attention, self._flops_s / e.attention, ceiling)
        ceiling = np.maximum(ceiling, self._bytes_s / e.bandwidth)
        scanning = np.maximum(self._bytes_s, self._special_s)
        ceiling = np.where(self._scan, scanning / e.scan, ceiling)
        ceiling = np.where(self._fused_scan, scanning / e.fused_scan, ceiling)
        seconds = self._count * np.maximum(ceiling, self._kernels * e.kernel_s)
        seconds[self._quantized_call] = 0  # measured on a CPU, which is not fitted
        busy = np.bincount(self._point, seconds, self._points)
        kernels = np.bincount(self._point, self._count * self._kernels, self._points)
        launching = kernels * e.host_s_per_kernel
        waiting = busy * np.maximum(0.0, 1 - e.queued_kernels / np.maximum(kernels, 1))
        return np.maximum(launching, busy), np.maximum(launching, waiting)

    def error(self, efficiency: Efficiency) -> float:
        """Return the mean error of each group's latencies, averaged over groups."""
        gpu, host = self.predict(efficiency)
        errors = np.concatenate([[np.abs(np.log(gpu / self._gpu))], [np.abs(np.log(host / self._host))]])
        return float(np.mean([np.nanmean(errors[:, group]) for group in self._groups]))
