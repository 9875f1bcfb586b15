"""What `vlmprof estimate` does and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console

from vlmprof.analysis.frames import show_resolution
from vlmprof.analysis.reference import load_reference
from vlmprof.cost.against import Prediction, achieved, calibration_points, first_oom, misses, predict
from vlmprof.cost.calibration import fit, leave_one_group_out
from vlmprof.cost.devices import DeviceSheet, sheet
from vlmprof.cost.roofline import Efficiency, estimate, measured_device
from vlmprof.cost.scans import KERNELS, Kernels
from vlmprof.errors import UserError, unknown
from vlmprof.plan import make_plan
from vlmprof.render import estimates
from vlmprof.render.style import backbone_label, backbone_words
from vlmprof.spec import SweepSpec
from vlmprof.store import load_frame
from vlmprof.units import show_bytes

if TYPE_CHECKING:
    import pandas as pd

STUDIES = ("kuo2026",)
"""References that ran the published scan kernels."""

LEAST_PREFILL_TOKENS = {"kuo2026": 4096}
"""Below so many tokens the study's LLM stage holds some 25 ms in which the device idles, more than all its
launches take and the same at 196 tokens and at 1,024; no counted cost explains it, so no constant is fitted
to it. The errors are printed all the same."""


def show(
    spec: SweepSpec, gpu: str, kernels: str | None, against: str | None, rates: bool, refit: bool
) -> None:
    """Estimate every cell of `spec`, print the table, and compare with what was measured, if asked to."""
    kernels = kernels or _kernels_of(gpu, against)
    if kernels not in KERNELS:
        raise unknown("implementation of the scans", kernels, KERNELS)
    if (refit or rates) and against is None:
        needy = "--refit" if refit else "--rates"
        raise UserError(f"{needy} needs --against: a run folder or kuo2026")
    frame = _rows(against) if against else None
    device, efficiency = _here(spec) if gpu == "here" else (sheet(gpu), Efficiency())
    console = Console() if sys.stdout.isatty() else Console(width=200)
    cells = make_plan(spec)
    chosen = cast(Kernels, kernels)
    with console.status("counting") as status:
        predictions = predict(
            cells, spec.fixed, device, efficiency=efficiency, kernels=chosen,
            on_cell=lambda cell: status.update(f"counting {cell.label}"),
        )  # fmt: skip
    if refit and frame is not None:
        least = LEAST_PREFILL_TOKENS.get(str(against), 0)
        points = calibration_points(predictions, frame, lambda name: backbone_words(name)[0], least)
        if not points:
            raise UserError(f"{against} measured none of these cells; there is nothing to fit to")
        efficiency = fit(points, device, efficiency)
        limit = spec.fixed["memory_limit"]
        predictions = [
            replace(p, estimate=estimate(p.cost, device, efficiency, limit, str(p.cell.axes["mode"])))
            for p in predictions
        ]
        console.print(f"fitted to {against}: {efficiency}", highlight=False)
        console.print(estimates.group_table(leave_one_group_out(points, device, efficiency)))
    console.print(
        f"{device.title}, estimated from counted costs, {kernels} scan kernels; nothing was run",
        highlight=False,
    )
    console.print(estimates.prediction_table(predictions))
    _say_where_memory_ends(console, predictions)
    if frame is not None:
        found = misses(predictions, frame)
        if not found:
            raise UserError(f"{against} measured none of these cells; name its own specification")
        if rates:
            console.print(estimates.achieved_table(achieved(predictions, frame, device)))
        console.print(estimates.miss_table(found))


def _say_where_memory_ends(console: Console, predictions: Sequence[Prediction]) -> None:
    limits = sorted({p.estimate.memory_bytes for p in predictions})
    console.print(f"memory for tensors: {', '.join(map(show_bytes, limits))}", highlight=False)
    lines = [dict(line) for line in first_oom(predictions)]
    varied = [axis for axis in lines[0] if axis != "backbone" and len({str(w[axis]) for w in lines}) > 1]
    for line, first in first_oom(predictions).items():
        axes = dict(line)
        name = " ".join([backbone_label(str(axes["backbone"])), *(str(axes[axis]) for axis in varied)])
        largest = [p for p in predictions if p.cell.line == line][-1]
        if first is None:
            words = f"fits up to {show_resolution(largest.cell.axes['resolution'])}, the largest asked for"
        else:
            where, need = first.estimate.peak_stage, show_bytes(first.estimate.peak_allocated_bytes)
            words = (
                f"first out of memory at {show_resolution(first.cell.axes['resolution'])} in {where} ({need})"
            )
        console.print(f"{name}: {words}", highlight=False)


def _kernels_of(gpu: str, against: str | None) -> str:
    if against in STUDIES:
        return "published"
    return "torch" if gpu == "here" else "triton"


def _rows(against: str) -> pd.DataFrame:
    return load_frame(against) if Path(against).is_dir() else load_reference(against)


def _here(spec: SweepSpec) -> tuple[DeviceSheet, Efficiency]:
    """This CPU, from what it reaches now."""
    import psutil
    import torch

    from vlmprof.environment import cpu_name
    from vlmprof.measure.ceilings import cpu_ceilings

    reached = [cpu_ceilings(getattr(torch, str(dtype))) for dtype in spec.axes["dtype"]]
    return measured_device(
        cpu_name(),
        psutil.virtual_memory().total,
        bandwidth_bytes_per_s=max(r.bandwidth_bytes_per_s for r in reached),
        cache_bytes_per_s=max(r.cache_bytes_per_s for r in reached),
        special_functions_per_s=max(r.special_functions_per_s for r in reached),
        matmul_flops_per_s={r.dtype: r.matmul_flops_per_s for r in reached},
        attention_flops_per_s={r.dtype: r.attention_flops_per_s for r in reached},
        call_s=min(r.call_s for r in reached),
    )
