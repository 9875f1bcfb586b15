"""What `vlmprof estimate` prints: for each device the predictions, and how far off they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vlmprof.activity import say
from vlmprof.analysis.reference import load_reference
from vlmprof.cli.tables import show_sheet
from vlmprof.cost.accuracy import Prediction, achieved, calibration_points, first_oom, misses, predict
from vlmprof.cost.calibration import fit, leave_one_group_out
from vlmprof.cost.count import Counted
from vlmprof.cost.devices import DeviceSheet, sheet
from vlmprof.cost.roofline import Efficiency
from vlmprof.cost.scans import KERNELS, Kernels
from vlmprof.errors import UserError, unknown
from vlmprof.execution.counting import count_on_all_cores
from vlmprof.plan import make_plan
from vlmprof.render.labels import backbone_words
from vlmprof.render.tables import estimates as tables
from vlmprof.render.tables.terminal import console
from vlmprof.spec import SweepSpec
from vlmprof.store import load_frame

if TYPE_CHECKING:
    import pandas as pd

STUDIES = ("kuo2026",)
"""References that ran the published scan kernels."""

LEAST_PREFILL_TOKENS = {"kuo2026": 4096}
"""Below so many tokens the study's LLM stage holds some 25 ms in which the device idles, more than all its
launches take and the same at 196 tokens and at 1,024; no counted cost explains it, so no constant is fitted
to it. The errors are printed all the same."""


@dataclass(frozen=True)
class Measured:
    """What predictions are compared with."""

    name: str
    """A run folder, or a reference."""
    rows: pd.DataFrame

    @classmethod
    def load(cls, name: str) -> Measured:
        """Read it. Raises `UserError` when it is neither."""
        return cls(name, load_frame(name) if Path(name).is_dir() else load_reference(name))


def show(
    spec: SweepSpec,
    gpus: Sequence[str],
    kernels: str | None,
    against: str | None,
    rates: bool,
    refit: bool,
    costs: bool,
    save_to: Path | None = None,
) -> None:
    """Estimate every cell of `spec` on each GPU, print the tables, and compare with what was measured, if
    asked to. Estimates and costs are also written to the folder `save_to`.

    Raises `UserError` for an unknown GPU, implementation or run, and if `against` measured none of the cells.
    """
    if (refit or rates) and against is None:
        needy = "--refit" if refit else "--rates"
        raise UserError(f"{needy} needs --against: a run folder or kuo2026")
    if kernels not in (None, *KERNELS):
        raise unknown("implementation of the scans", str(kernels), KERNELS)
    measured = Measured.load(against) if against else None
    devices = [_device(gpu, spec) for gpu in dict.fromkeys(gpus)]
    limit = spec.settings.memory_limit_bytes
    counted: dict[Kernels, list[Counted]] = {}
    for device, efficiency in devices:
        chosen = cast(Kernels, kernels or _kernels_on(device, against))
        if chosen not in counted:
            counted[chosen] = _counted(spec, chosen)
            for words in tables.assumption_lines(counted[chosen]):
                _print(words)
            if costs:
                _show_costs(counted[chosen], chosen, save_to)
        predictions = predict(counted[chosen], device, efficiency, limit)
        if refit and measured is not None:
            efficiency = _refit(predictions, measured, device, efficiency)
            predictions = predict(counted[chosen], device, efficiency, limit)
        _show_predictions(predictions, device, chosen, save_to)
        if measured is not None:
            _show_errors(predictions, measured, device if rates else None)
    if measured is None:
        for name in _measured_already(spec):
            _print(f"--against {name} says how far off that is")


def _print(words: str) -> None:
    console().print(words, markup=False)


def _device(gpu: str, spec: SweepSpec) -> tuple[DeviceSheet, Efficiency]:
    if gpu != "here":
        return sheet(gpu), Efficiency()
    from vlmprof.execution.this_cpu import measure_this_cpu

    say("measuring what this CPU reaches")
    return measure_this_cpu(spec.axes["dtype"])


def _kernels_on(device: DeviceSheet, against: str | None) -> str:
    if against in STUDIES:
        return "published"
    return "torch" if device.synchronous else "triton"


def _counted(spec: SweepSpec, kernels: Kernels) -> list[Counted]:
    cells = make_plan(spec)
    return count_on_all_cores(cells, spec.settings, kernels, lambda cell: say(f"counting {cell.label}"))


def _show_costs(counted: Sequence[Counted], kernels: Kernels, save_to: Path | None) -> None:
    words = "counted, not measured (1 MAC = 2 FLOPs; bytes as if nothing stayed in a cache)"
    _print(f"{words}, {kernels} scan kernels")
    show_sheet(tables.cost_sheet(counted, kernels), save_to)


def _show_predictions(
    predictions: Sequence[Prediction], device: DeviceSheet, kernels: Kernels, save_to: Path | None
) -> None:
    _print(f"{device.title}, estimated from counted costs, {kernels} scan kernels; nothing was run")
    show_sheet(tables.prediction_sheet(predictions, device.name), save_to)
    for line in tables.memory_lines(predictions, list(first_oom(predictions).values())):
        _print(line)


def _show_errors(predictions: Sequence[Prediction], measured: Measured, device: DeviceSheet | None) -> None:
    """How far off the predictions were, and with `device` what the measurements reached of its ceilings."""
    found = misses(predictions, measured.rows)
    if not found:
        raise UserError(f"{measured.name} measured none of these cells; name its own specification")
    devices = measured.rows.get("device")
    names = "" if devices is None else ", ".join(sorted(devices.dropna().unique()))
    _print(f"against {measured.name}{f', measured on {names}' if names else ''}")
    if device is not None:
        show_sheet(tables.achieved_sheet(achieved(predictions, measured.rows, device)))
    show_sheet(tables.miss_sheet(found))


def _refit(
    predictions: Sequence[Prediction], measured: Measured, device: DeviceSheet, efficiency: Efficiency
) -> Efficiency:
    """The constants fitted to what was measured, printed with their errors on groups left out."""
    least = LEAST_PREFILL_TOKENS.get(measured.name, 0)
    points = calibration_points(predictions, measured.rows, lambda name: backbone_words(name)[0], least)
    if not points:
        raise UserError(f"{measured.name} measured none of these cells; there is nothing to fit to")
    say("fitting the constants")
    fitted = fit(points, device, efficiency)
    _print(f"fitted to {measured.name}: {fitted}")
    show_sheet(tables.group_sheet(leave_one_group_out(points, device, fitted)))
    return fitted


def _measured_already(spec: SweepSpec) -> list[str]:
    """What may have measured these cells: run folders as a sweep names them, and the study it is of."""
    folders = [Path("runs") / name for name in (f"{spec.name}-{spec.digest()}", spec.name)]
    runs = [str(folder) for folder in folders if (folder / "rows.jsonl").is_file()]
    return [*runs, *(name for name in STUDIES if spec.name.startswith(name))]
