"""What `vlmprof estimate` does and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console

from vlmprof.activity import say
from vlmprof.analysis.frames import show_resolution
from vlmprof.analysis.reference import load_reference
from vlmprof.cost.accuracy import (
    Prediction,
    achieved,
    calibration_points,
    first_oom,
    misses,
    predict,
)
from vlmprof.cost.calibration import fit, leave_one_group_out
from vlmprof.cost.count import Counted
from vlmprof.cost.devices import DeviceSheet, sheet
from vlmprof.cost.roofline import Efficiency, measured_device
from vlmprof.cost.scans import KERNELS, Kernels
from vlmprof.errors import UserError, unknown
from vlmprof.execution.counting import count_on_all_cores
from vlmprof.plan import make_plan
from vlmprof.render.labels import backbone_label, backbone_words
from vlmprof.render.tables import estimates
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
    spec: SweepSpec,
    gpus: Sequence[str],
    kernels: str | None,
    against: str | None,
    rates: bool,
    refit: bool,
    costs: bool,
) -> None:
    """Estimate every cell of `spec` on each GPU, print the tables, and compare with what was measured, if
    asked to."""
    if (refit or rates) and against is None:
        needy = "--refit" if refit else "--rates"
        raise UserError(f"{needy} needs --against: a run folder or kuo2026")
    if kernels not in (None, *KERNELS):
        raise unknown("implementation of the scans", str(kernels), KERNELS)
    frame = _rows(against) if against else None
    devices = [_here(spec) if gpu == "here" else (sheet(gpu), Efficiency()) for gpu in dict.fromkeys(gpus)]
    console = Console() if sys.stdout.isatty() else Console(width=200)
    counted: dict[Kernels, list[Counted]] = {}
    for device, efficiency in devices:
        chosen = cast(Kernels, kernels or _kernels_on(device, against))
        if chosen not in counted:
            counted[chosen] = _counted(spec, chosen)
            if costs:
                _show_costs(console, counted[chosen], chosen)
        limit = spec.settings.memory_limit_bytes
        predictions = predict(counted[chosen], device, efficiency, limit)
        if refit and frame is not None:
            efficiency = _refitted(console, predictions, frame, str(against), device, efficiency)
            predictions = predict(counted[chosen], device, efficiency, limit)
        _show_predictions(console, predictions, device, chosen)
        if frame is not None:
            _show_misses(console, predictions, frame, str(against), device if rates else None)
    if frame is None:
        for measured in _measured_already(spec):
            console.print(f"--against {measured} says how far off that is", highlight=False)


def _counted(spec: SweepSpec, kernels: Kernels) -> list[Counted]:
    cells = make_plan(spec)
    return count_on_all_cores(cells, spec.settings, kernels, lambda cell: say(f"counting {cell.label}"))


def _show_costs(console: Console, counted: Sequence[Counted], kernels: Kernels) -> None:
    words = "counted, not measured (1 MAC = 2 FLOPs; bytes as if nothing stayed in a cache)"
    console.print(f"{words}, {kernels} scan kernels", highlight=False)
    console.print(estimates.cost_table(counted))


def _show_predictions(
    console: Console, predictions: Sequence[Prediction], device: DeviceSheet, kernels: Kernels
) -> None:
    console.print(
        f"{device.title}, estimated from counted costs, {kernels} scan kernels; nothing was run",
        highlight=False,
    )
    console.print(estimates.prediction_table(predictions))
    _say_where_memory_ends(console, predictions)


def _show_misses(
    console: Console,
    predictions: Sequence[Prediction],
    frame: pd.DataFrame,
    against: str,
    device: DeviceSheet | None,
) -> None:
    """How far off `against` was, and with `device` what its measurements reached of that one's ceilings."""
    found = misses(predictions, frame)
    if not found:
        raise UserError(f"{against} measured none of these cells; name its own specification")
    names = ", ".join(sorted(frame["device"].dropna().unique())) if "device" in frame else ""
    console.print(f"against {against}{f', measured on {names}' if names else ''}", highlight=False)
    if device is not None:
        console.print(estimates.achieved_table(achieved(predictions, frame, device)))
    console.print(estimates.miss_table(found))


def _refitted(
    console: Console,
    predictions: Sequence[Prediction],
    frame: pd.DataFrame,
    against: str,
    device: DeviceSheet,
    efficiency: Efficiency,
) -> Efficiency:
    """The constants fitted to what was measured, printed with their errors on groups left out."""
    least = LEAST_PREFILL_TOKENS.get(against, 0)
    points = calibration_points(predictions, frame, lambda name: backbone_words(name)[0], least)
    if not points:
        raise UserError(f"{against} measured none of these cells; there is nothing to fit to")
    say("fitting the constants")
    fitted = fit(points, device, efficiency)
    console.print(f"fitted to {against}: {fitted}", highlight=False)
    console.print(estimates.group_table(leave_one_group_out(points, device, fitted)))
    return fitted


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
            words = f"fits up to {show_resolution(largest.cell.axes.resolution)}, the largest asked for"
        else:
            where, need = first.estimate.oom_stage, show_bytes(first.estimate.peak_allocated_bytes)
            words = (
                f"first out of memory at {show_resolution(first.cell.axes.resolution)} in {where} ({need})"
            )
        console.print(f"{name}: {words}", highlight=False)


def _measured_already(spec: SweepSpec) -> list[str]:
    """What may have measured these cells: run folders as a sweep names them, and the study it is of."""
    folders = [Path("runs") / name for name in (f"{spec.name}-{spec.digest()}", spec.name)]
    runs = [str(folder) for folder in folders if (folder / "rows.jsonl").is_file()]
    return [*runs, *(name for name in STUDIES if spec.name.startswith(name))]


def _kernels_on(device: DeviceSheet, against: str | None) -> str:
    if against in STUDIES:
        return "published"
    return "torch" if device.synchronous else "triton"


def _rows(against: str) -> pd.DataFrame:
    return load_frame(against) if Path(against).is_dir() else load_reference(against)


def _here(spec: SweepSpec) -> tuple[DeviceSheet, Efficiency]:
    """This CPU, from what it reaches now."""
    say("measuring what this CPU reaches")
    import psutil
    import torch

    from vlmprof.environment import cpu_name
    from vlmprof.measure.ceilings import cpu_ceilings

    # models in 16 bits compute some things in float32
    reached = [cpu_ceilings(getattr(torch, dtype)) for dtype in sorted({"float32", *spec.axes["dtype"]})]
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
