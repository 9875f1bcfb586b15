"""The out-of-memory frontier: the largest image, batch or number of frames that fits each memory budget.

The candidates of every line are sorted by size. The cost model makes the first guess, corrected for memory
that it does not count by the results of smaller budgets. From there, the search doubles its step until it has
a size that fits and one that does not, then bisects:

    fits     fits         fits fits | out     out                out
    o--------o------------o----o----|x--------x------------------x
                          ^ guess

Each probe is a cell in a separate process and a row of the run folder, with the budget as an additional axis.
Probes on disk are never repeated, and a size that fits one budget fits every larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmprof.backbones import catalog
from vlmprof.execution import limits
from vlmprof.execution.machine import describe_machine
from vlmprof.execution.processes import call_in_process
from vlmprof.execution.progress import Progress
from vlmprof.execution.supervisor import measure_cell
from vlmprof.manifest import new_manifest
from vlmprof.plan import Cell, LineKey, cell_id, line_key, make_plan
from vlmprof.records import Row, Status
from vlmprof.settings import AxisValue, Machine, Settings
from vlmprof.spec import SweepSpec
from vlmprof.store import RunFolder, check_can_hold_a_run
from vlmprof.vlm.precision import check_installed

COUNTED = 12
"""Cells per line whose peaks are counted; the others are interpolated."""


@dataclass(frozen=True)
class Frontier:
    """The frontier of one line under one budget."""

    line: Mapping[str, AxisValue]
    """The fixed axes."""
    axis: str
    """The searched axis."""
    memory_limit_bytes: int
    fits: Cell | None
    """The largest candidate that fits; None if even the smallest does not."""
    fails: Cell | None
    """The smallest candidate that does not fit; None if even the largest does."""
    oom_stage: str | None
    """The stage that ran out of memory at `fails`."""
    guess: Cell | None
    """The largest candidate that fits according to the cost model; None if none does."""
    probes: int
    """The number of cells that this call ran."""
    trouble: str | None = None
    """The reason why the search ended early; None if it did not."""


class _UndecidedError(Exception):
    """A probe ended neither `ok` nor `oom`."""


def find_frontiers(
    spec: SweepSpec, axis: str, memory_limits: Sequence[int], out: Path, command: str, progress: Progress
) -> list[Frontier]:
    """Search along `axis` (`resolution`, `batch_size` or `frames`) for every line of `spec` and every budget.

    The candidates are the spec's values on that axis; `memory_limits` are the budgets in bytes. Calling this
    again on the same folder resumes the search. Raises `UserError` before anything runs if the device cannot
    enforce a budget.
    """
    lines = candidate_lines(spec, axis)
    check_installed(spec.axes.llm_precision)
    check_can_hold_a_run(out)
    with progress:
        machine = describe_machine(spec.settings.device)
    settings = replace(spec.settings, device=machine.device)
    budgets = sorted(set(memory_limits))
    for budget in budgets:
        limits.check_memory_limit(budget, machine.kind, machine.device_memory_bytes)
    backbones = catalog.declared(spec.axes.backbone)
    manifest = new_manifest(spec.to_json(), command, machine.to_json(), backbones)
    found = []
    with RunFolder(out, manifest) as folder, progress:
        progress.begin([], kept=0)
        for cells in lines:
            probing = _Probing(cells, folder, settings, machine, progress)
            peaks = _peaks(cells, settings)
            smaller, seen = -1, [(0.0, 0.0)]
            for budget in budgets:
                countable = _countable(budget, seen)
                guess = max((i for i, peak in enumerate(peaks) if peak <= countable), default=-1)
                frontier = probing.search(axis, budget, guess, smaller)
                found.append(frontier)
                smaller = -1 if frontier.fits is None else cells.index(frontier.fits)
                counted = math.isfinite(sum(peaks))
                if counted and frontier.fits is not None and frontier.fails is not None:
                    seen.append(((peaks[smaller] + peaks[smaller + 1]) / 2, float(budget)))
    return found


def candidate_lines(spec: SweepSpec, axis: str) -> list[list[Cell]]:
    """Return the cells of each line, sorted by size along `axis`, without sizes that a backbone rejects."""
    lines: dict[LineKey, list[Cell]] = {}
    for cell in make_plan(spec, photos=False):
        if cell.skip_reason is None:
            lines.setdefault(line_key(cell.axes.named, axis), []).append(cell)
    return [sorted(cells, key=_size) for cells in lines.values()]


def largest_fitting(
    candidates: int, fits: Callable[[int], bool], guess: int, known: int = -1
) -> tuple[int, int]:
    """Find the largest index below `candidates` for which `fits` is true; return it and the next one.

    The result is (−1, 0) if nothing fits and (candidates − 1, candidates) if everything does. `known` is
    known to fit and is not tried. With a good guess, two calls of `fits` are enough.
    """
    low, high = known, candidates
    at, step = guess, 1
    while high - low > 1:
        at = min(max(at, low + 1), high - 1)
        if fits(at):
            low = at
        else:
            high = at
        if known < low and high < candidates:
            at = (low + high) // 2
        else:
            at = low + step if high == candidates else high - step
            step *= 2
    return low, high


def counted_peaks(cells: Sequence[Cell], settings: Settings) -> list[float]:
    """Estimate the peak memory of every cell in bytes with the cost model. Imports torch.

    A few cells are counted; the others are interpolated logarithmically over pixels times batch size
    times frames. Scans are counted for the backend of this machine: `triton` on a GPU, `torch` elsewhere.
    """
    import numpy as np

    from vlmprof.cost.count import count_cell

    kernels: Any = "triton" if settings.device.startswith("cuda") else "torch"
    sizes = np.log([math.prod(_size(cell)) for cell in cells])
    nearest = [int(np.abs(sizes - at).argmin()) for at in np.linspace(sizes[0], sizes[-1], COUNTED)]
    at = sorted(set(nearest))
    peaks = [np.log(count_cell(cells[i], settings, kernels).peak_allocated_bytes) for i in at]
    return [float(peak) for peak in np.exp(np.interp(sizes, sizes[at], peaks))]


@dataclass
class _Probing:
    """Runs the probes of one line of cells, or reads them from disk."""

    cells: list[Cell]
    folder: RunFolder
    settings: Settings
    machine: Machine
    progress: Progress

    def search(self, axis: str, budget: int, guess: int, known: int) -> Frontier:
        """Search one budget; `known` is the largest cell that fits a smaller budget, or −1."""
        rows: dict[int, Row] = {}
        ran = 0

        def fits(i: int) -> bool:
            nonlocal ran
            rows[i], fresh = self._row(i, budget)
            ran += fresh
            if rows[i].visual_tokens is not None:  # only a run shows the tokens of a VLM from transformers
                self.cells[i] = replace(self.cells[i], visual_tokens=rows[i].visual_tokens)
            if rows[i].status not in (Status.OK, Status.OOM):
                raise _UndecidedError(f"{self.cells[i].label}: {rows[i].status}, {rows[i].message}")
            return rows[i].status is Status.OK

        low, high, trouble = known, len(self.cells), None
        try:
            low, high = largest_fitting(len(self.cells), fits, max(guess, known, 0), known)
        except _UndecidedError as problem:
            trouble = str(problem)
            decided = {
                i: row.status is Status.OK for i, row in rows.items() if row.status in (Status.OK, Status.OOM)
            }
            low = max([known, *(i for i, fit in decided.items() if fit)])
            high = min([high, *(i for i, fit in decided.items() if not fit)])
        return Frontier(
            line=dict(line_key(self.cells[0].axes.named, axis)),
            axis=axis,
            memory_limit_bytes=budget,
            fits=self.cells[low] if low >= 0 else None,
            fails=self.cells[high] if high < len(self.cells) else None,
            oom_stage=rows[high].oom_stage if high in rows else None,
            guess=self.cells[guess] if guess >= 0 else None,
            probes=ran,
            trouble=trouble,
        )

    def _row(self, i: int, budget: int) -> tuple[Row, bool]:
        """Return the row of a candidate under a budget, and whether it had to run."""
        axes = replace(self.cells[i].axes, memory_limit_bytes=budget)
        cell = replace(self.cells[i], axes=axes, cell_id=cell_id(axes))
        row = self.folder.rows().get(cell.cell_id)
        if row is not None and row.status in (Status.OK, Status.OOM):
            return row, False
        settings = replace(self.settings, memory_limit_bytes=budget)
        log = self.folder.log_path(cell.cell_id)
        row, samples = measure_cell(
            cell, settings, self.machine, log, lambda reading: self.progress.tick(cell, reading)
        )
        self.folder.append(row, samples)
        self.progress.finished(cell, row)
        return row, True


def _peaks(cells: Sequence[Cell], settings: Settings) -> list[float]:
    """Call `counted_peaks` in a separate process, to keep torch out of this one.

    A model that cannot be counted is searched from its smallest cell.
    """
    ended = call_in_process("vlmprof.execution.frontier:counted_peaks", (list(cells), settings))
    return [math.inf] * len(cells) if ended.value is None else ended.value


def _countable(budget: int, seen: Sequence[tuple[float, float]]) -> float:
    """Return the counted peak that is expected to fill a budget.

    It is extrapolated from the last two frontiers (counted peak, budget), because libraries and fragmentation
    use memory that is not counted.
    """
    if len(seen) < 2:
        return budget
    (peak0, budget0), (peak1, budget1) = seen[-2:]
    return peak1 + (budget - budget1) * (peak1 - peak0) / (budget1 - budget0)


def _size(cell: Cell) -> tuple[int, int, int]:
    return cell.height_px * cell.width_px, cell.axes.batch_size, cell.axes.frames
