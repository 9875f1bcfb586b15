"""The output of `vlmprof estimate`: predictions for each device, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vlmprof.activity import say
from vlmprof.cli.json_output import tell, tell_files
from vlmprof.cli.runs import read_run
from vlmprof.cli.tables import show_sheet
from vlmprof.cost.accuracy import Prediction, achieved, calibration_points, misses, predict
from vlmprof.cost.calibration import fit, leave_one_group_out
from vlmprof.cost.count import Counted
from vlmprof.cost.devices import DeviceSheet, sheet
from vlmprof.cost.roofline import Efficiency
from vlmprof.cost.scans import KERNELS, Kernels
from vlmprof.errors import UserError, check_known
from vlmprof.execution.counting import count_on_all_cores
from vlmprof.plan import Cell, make_plan
from vlmprof.records import Status
from vlmprof.render.labels import backbone_words
from vlmprof.render.tables import estimates as tables
from vlmprof.spec import SweepSpec

if TYPE_CHECKING:
    import pandas as pd

STUDIES = ("kuo2026",)
"""References measured with the published scan kernels."""

LEAST_PREFILL_TOKENS = {"kuo2026": 4096}
"""Fewest prefill tokens for a fit. Below, the study's LLM stage includes about 25 ms of idle device time:
more than all its launches take, and the same at 196 and at 1,024 tokens. No counted cost explains this, so no
constant is fitted to it. The errors are still printed."""


@dataclass(frozen=True)
class Measured:
    """The measurements that predictions are compared with."""

    name: str
    """A run folder or the name of a reference."""
    rows: pd.DataFrame

    @classmethod
    def load(cls, name: str) -> Measured:
        """Load a run or a reference. Raises `UserError` if `name` is neither."""
        from vlmprof.analysis.reference import load_reference, references

        if name in references():
            return cls(name, load_reference(name))
        try:
            return cls(name, read_run(Path(name)).frame)
        except UserError as error:
            raise UserError(f"--against: {error}; published points are {', '.join(references())}") from None


def show(
    spec: SweepSpec,
    gpus: Sequence[str],
    kernels: str | None,
    against: str | None,
    rates: bool,
    refit: bool,
    costs: bool,
    save_to: Path | None = None,
    figure_to: Path | None = None,
) -> None:
    """Estimate every cell of `spec` on each GPU, print the tables, and compare with the measurements of
    `against`, if given. Estimates and costs are also written to the folder `save_to`, and a figure of the
    estimates to `figure_to`.

    Raises `UserError` for an unknown GPU, implementation or run, and if `against` has none of the cells.
    """
    if (refit or rates) and against is None:
        needy = "--refit" if refit else "--rates"
        raise UserError(f"{needy} needs --against: a run folder or kuo2026")
    check_known("scan implementation", [kernels] if kernels is not None else [], KERNELS)
    measured = Measured.load(against) if against else None
    devices = [_device(gpu, spec) for gpu in dict.fromkeys(gpus)]
    limit, cells = spec.settings.memory_limit_bytes, make_plan(spec)
    counted: dict[Kernels, list[Counted]] = {}
    for device, efficiency in devices:
        chosen = cast(Kernels, kernels or _kernels_on(device, against))
        if chosen not in counted:
            counted[chosen] = _counted(spec, cells, chosen)
            for words in tables.assumption_lines(counted[chosen]):
                tell(words)
            if costs:
                words = "counted, not measured (1 MAC = 2 FLOPs; bytes assume no cache hits)"
                tell(f"{words}, {chosen} scan kernels")
                show_sheet(tables.cost_sheet(counted[chosen], chosen), save_to)
        predictions = predict(counted[chosen], device, efficiency, limit)
        if refit and measured is not None:
            efficiency = _refit(predictions, measured, device, efficiency)
            predictions = predict(counted[chosen], device, efficiency, limit)
        tell(f"{device.title}, estimated from counted costs with {chosen} scan kernels; nothing was run")
        show_sheet(tables.prediction_sheet(predictions, device.name), save_to)
        if figure_to is not None:
            _draw(predictions, device, figure_to)
        about = tables.precision_lines(device, spec.axes.llm_precision)
        for line in (*about, tables.memory_words(device, limit), *tables.memory_lines(predictions, cells)):
            tell(line)
        if measured is not None:
            _show_errors(predictions, measured, device, rates)
    if measured is None:
        for name in _measured_already(spec):
            tell(f"use --against {name} to see the errors")


def frame_of(spec: SweepSpec, gpu: str) -> tuple[pd.DataFrame, str]:
    """Estimate every cell of `spec` on a GPU; return rows, as of a run, and the title of the device.

    Raises `UserError` for an unknown GPU.
    """
    from vlmprof.render.figures.predictions import estimated_frame

    device, efficiency = _device(gpu, spec)
    counted = _counted(spec, make_plan(spec), cast(Kernels, _kernels_on(device, None)))
    for words in (
        *tables.assumption_lines(counted),
        *tables.precision_lines(device, spec.axes.llm_precision),
    ):
        tell(words)
    predictions = predict(counted, device, efficiency, spec.settings.memory_limit_bytes)
    return estimated_frame(predictions), device.title


def _device(gpu: str, spec: SweepSpec) -> tuple[DeviceSheet, Efficiency]:
    if gpu != "here":
        return sheet(gpu), Efficiency()
    from vlmprof.execution.this_cpu import measure_this_cpu

    say("measuring the ceilings of this CPU")
    return measure_this_cpu(spec.axes.dtype, spec.axes.llm_precision)


def _kernels_on(device: DeviceSheet, against: str | None) -> str:
    if against in STUDIES:
        return "published"
    return "torch" if device.synchronous else "triton"


def _counted(spec: SweepSpec, cells: Sequence[Cell], kernels: Kernels) -> list[Counted]:
    return count_on_all_cores(cells, spec.settings, kernels, lambda cell: say(f"counting {cell.label}"))


def _draw(predictions: Sequence[Prediction], device: DeviceSheet, folder: Path) -> None:
    from vlmprof.analysis.advice import Limits, advise
    from vlmprof.render.figures.files import save_figure
    from vlmprof.render.figures.pareto import pareto_figure
    from vlmprof.render.figures.predictions import draw_predictions, estimated_frame
    from vlmprof.render.figures.ttft import ttft_figure

    figures = {"estimates": draw_predictions(predictions, device.title)}
    frame = estimated_frame(predictions)
    if (frame["status"] == Status.OK).any():
        figures["front"] = pareto_figure(advise(frame, Limits(), estimated_for=device.title), Limits())
        figures["ttft"] = ttft_figure(frame, device.title)
    for name, figure in figures.items():
        tell_files(save_figure(figure, folder, f"{name}-{device.name}", ("png", "pdf")))


def _show_errors(
    predictions: Sequence[Prediction], measured: Measured, device: DeviceSheet, rates: bool
) -> None:
    """Print the errors of the predictions and, with `rates`, the share of the ceilings that was reached."""
    found = misses(predictions, measured.rows)
    if not found:
        raise UserError(f"{measured.name} has none of these cells; pass the specification of that run")
    devices = measured.rows.get("device")
    names = "" if devices is None else ", ".join(sorted(devices.dropna().unique()))
    tell(f"against {measured.name}{f', measured on {names}' if names else ''}")
    if rates:
        show_sheet(tables.achieved_sheet(achieved(predictions, measured.rows, device), device.name))
    show_sheet(tables.miss_sheet(found, device.name))


def _refit(
    predictions: Sequence[Prediction], measured: Measured, device: DeviceSheet, efficiency: Efficiency
) -> Efficiency:
    """Fit the constants to the measurements, and print them with their cross-validation errors."""
    least = LEAST_PREFILL_TOKENS.get(measured.name, 0)
    points = calibration_points(predictions, measured.rows, lambda name: backbone_words(name)[0], least)
    if not points:
        raise UserError(f"{measured.name} has none of these cells, so there is nothing to fit")
    say("fitting the constants")
    fitted = fit(points, device, efficiency)
    tell(f"fitted to {measured.name}: {fitted}")
    show_sheet(tables.group_sheet(leave_one_group_out(points, device, fitted)))
    return fitted


def _measured_already(spec: SweepSpec) -> list[str]:
    """Return runs that may contain these cells: the default run folder of the sweep, and its study."""
    folders = [Path("runs") / name for name in (f"{spec.name}-{spec.digest()}", spec.name)]
    runs = [str(folder) for folder in folders if (folder / "rows.jsonl").is_file()]
    return [*runs, *(name for name in STUDIES if spec.name.startswith(name))]
