"""Execution of a plan cell by cell: run, skip, record, resume."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmprof.activity import say
from vlmprof.backbones import catalog
from vlmprof.errors import UserError
from vlmprof.execution import limits, sharing
from vlmprof.execution.ceilings import AGAIN_AFTER_S, best_of, is_about_ceilings, with_ceilings
from vlmprof.execution.duration import expected_seconds
from vlmprof.execution.launchers import Finished, Job, Launcher
from vlmprof.execution.launchers.local import LocalLauncher
from vlmprof.execution.machine import describe_machine
from vlmprof.execution.order import repeated
from vlmprof.execution.progress import Progress
from vlmprof.execution.rows import unmeasured_row
from vlmprof.manifest import new_manifest
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell, LineKey, line_key, make_plan
from vlmprof.records import Row, Status, cell_of_repeat
from vlmprof.settings import Machine, Settings
from vlmprof.spec import SweepSpec
from vlmprof.store import RunFolder, check_can_hold_a_run
from vlmprof.units import show_frames
from vlmprof.vlm.precision import check_installed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepOutcome:
    """The number of cells by outcome in a call of `run_sweep`."""

    measured: int
    kept: int
    """Cells finished by an earlier call."""


def run_sweep(
    spec: SweepSpec,
    out: Path,
    command: str,
    progress: Progress,
    *,
    repeats: int = 1,
    retry: Collection[Status] = (),
    devices: Sequence[str] = (),
    cluster: str | None = None,
) -> SweepOutcome:
    """Run every cell of `spec` that has no row in the run folder `out` yet.

    Args:
        command: The command to record in the manifest.
        repeats: How often to measure each cell, each time in a new process.
        retry: Statuses of rows to run again.
        devices: Devices to run on, one cell at a time on each, instead of the device of the settings.
        cluster: Address of a Ray cluster to run on; `local` starts one on this machine.

    Raises `UserError` before anything is measured if the specification cannot be run here. If an exception
    such as `KeyboardInterrupt` ends it, every finished cell is on disk.
    """
    planned = make_plan(spec)
    check_installed(spec.axes.llm_precision)
    check_can_hold_a_run(out)
    prepare = _cluster_launcher if cluster is not None else _local_launcher
    with progress:
        say("looking at the device")
        launcher, machine = prepare(spec, progress, devices, cluster)
        settings = replace(spec.settings, device=machine.device)
        if {*spec.axes.llm_precision} - {"as-dtype"}:
            planned = make_plan(replace(spec, settings=settings))  # now that the device is known
        cells = repeated(planned, repeats, settings.order, settings.seed)
        if settings.memory_limit_bytes:
            limits.check_memory_limit(settings.memory_limit_bytes, machine.kind, machine.device_memory_bytes)
        backbones = catalog.declared(spec.axes.backbone)
        manifest = new_manifest(spec.to_json(), command, machine.to_json(), backbones)
        with RunFolder(out, manifest) as folder, launcher:
            again = {Status.SKIPPED, *retry} if settings.run_after_oom else set(retry)
            done = {cell_id: row for cell_id, row in folder.rows().items() if row.status not in again}
            todo = [cell for cell in cells if cell.cell_id not in done]
            say("estimating the duration")
            expected_s = _expected_seconds(todo, settings, machine)
            if len(devices) > 1:
                expected_s = {cell_id: seconds / len(devices) for cell_id, seconds in expected_s.items()}
            progress.begin(todo, len(cells) - len(todo), expected_s)
            logger.info("%d cells to run in %s, %d done before", len(todo), out, len(cells) - len(todo))
            begun_s = time.monotonic()
            _Run(settings, machine, folder, progress, launcher, done.values()).finish(todo)
            _revise_ceilings(folder, todo, machine, launcher, time.monotonic() - begun_s)
    return SweepOutcome(measured=len(todo), kept=len(cells) - len(todo))


def _local_launcher(
    spec: SweepSpec, progress: Progress, devices: Sequence[str], cluster: str | None
) -> tuple[Launcher, Machine]:
    machines = _distinct_machines(devices or [spec.settings.device], spec.axes.dtype)
    names = sorted({machine.device_name for machine in machines})
    if len(names) > 1:
        raise UserError(f"--devices must all be of the same kind, but they are {', '.join(names)}")
    return LocalLauncher(machines, progress), machines[0]


def _distinct_machines(devices: Sequence[str], dtypes: Sequence[str]) -> list[Machine]:
    """Describe each of `devices`. Refuses two names of one device, whose cells would slow each other down."""
    machines: dict[str, Machine] = {}
    names: dict[str, str] = {}
    for device in devices:
        machine = describe_machine(device, dtypes)
        identity = machine.kind if machine.kind == "cpu" else machine.device_uuid or machine.device
        if identity in names:
            raise UserError(f"--devices {names[identity]} and {device} are the same device; pass it once")
        names[identity], machines[identity] = device, machine
    return list(machines.values())


def _cluster_launcher(
    spec: SweepSpec, progress: Progress, devices: Sequence[str], cluster: str | None
) -> tuple[Launcher, Machine]:
    from vlmprof.execution.launchers.ray import connect

    return connect(cluster or "", spec.settings.device, spec.axes.dtype)


def _expected_seconds(todo: Sequence[Cell], settings: Settings, machine: Machine) -> dict[str, float]:
    """Estimate how long each cell takes, by cell id; the repeats of a cell are estimated once."""
    own_id = {cell.cell_id: cell_of_repeat(cell.cell_id, cell.repeat) for cell in todo}
    once = {own_id[cell.cell_id]: replace(cell, cell_id=own_id[cell.cell_id]) for cell in todo}
    expected_s = expected_seconds(list(once.values()), settings, machine)
    return {cell_id: expected_s[own] for cell_id, own in own_id.items() if own in expected_s}


def _revise_ceilings(
    folder: RunFolder, cells: Sequence[Cell], machine: Machine, launcher: Launcher, lasted_s: float
) -> None:
    """Measure the ceilings again after a long sweep, or if a row is above them, and correct the rows."""
    known = folder.rows()
    found = [known[cell.cell_id] for cell in cells if cell.cell_id in known]
    rows = [row for row in found if row.status is Status.OK]
    doubtful = any(is_about_ceilings(words) for row in rows for words in row.warnings)
    if not rows or not machine.ceilings or not (doubtful or lasted_s > AGAIN_AFTER_S):
        return
    say("measuring the ceilings again")
    best = best_of(machine.ceilings, launcher.ceilings(machine.ceilings))
    changed = {row.cell_id: revised for row in rows if (revised := with_ceilings(row, best)) != row}
    if changed:
        logger.info("ceilings were higher after the sweep: %s", best)
        folder.revise(changed, {"ceilings": best})


@dataclass(frozen=True)
class _SharedFrom:
    row: Row
    omitted_bytes: int


class _Run:
    """One pass over the remaining cells: runs or skips each, depending on earlier results."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        folder: RunFolder,
        progress: Progress,
        launcher: Launcher,
        done: Collection[Row],
    ) -> None:
        self._settings = settings
        self._device_name = machine.device_name
        on_gpu = machine.kind == "cuda"
        self._room_bytes = settings.memory_limit_bytes or (machine.device_memory_bytes if on_gpu else None)
        self._folder = folder
        self._progress = progress
        self._launcher = launcher
        self._too_large = _TooLarge(done)
        self._llms = sharing.SharedLLM(settings.share_llm and "prefill" in settings.stages, done)
        self._running: dict[str, _SharedFrom | None] = {}
        """Running cells by id, with the source of their LLM stages if these are shared."""
        self._repeated: set[str] = set()

    def finish(self, todo: Sequence[Cell]) -> None:
        """Run or skip every cell; return when the last row is on disk."""
        pending = deque(todo)
        while pending or self._running:
            while pending and self._launcher.has_room():
                self._begin(pending.popleft())
            if self._running:
                self._end(self._launcher.wait())

    def _begin(self, cell: Cell) -> None:
        reason = cell.skip_reason
        smaller = self._too_large.smaller_than(cell)
        if smaller is not None and not self._settings.run_after_oom:
            reason = f"already out of memory at {smaller}"
        if reason is not None:
            logger.debug("%s skipped: %s", cell.label, reason)
            self._record(cell, unmeasured_row(cell, self._device_name, Status.SKIPPED, reason), Samples())
            return
        source_row, settings = self._llms.source_row(cell), self._settings
        self._running[cell.cell_id] = None
        if source_row is not None:
            omitted_bytes = sharing.omitted_llm_bytes(cell, settings, source_row)
            self._running[cell.cell_id] = _SharedFrom(source_row, omitted_bytes)
            settings = sharing.without_llm(settings, self._room_bytes, omitted_bytes)
        self._launcher.start(Job(cell, settings, self._folder.log_path(cell.cell_id)))

    def _end(self, finished: Finished) -> None:
        cell, row, samples = finished.job.cell, finished.row, finished.samples
        shared = self._running[cell.cell_id]
        if shared is not None:
            source_samples = self._folder.samples(shared.row.cell_id)
            row, samples = sharing.complete(row, samples, shared.row, source_samples, shared.omitted_bytes)
        if self._settings.cool_down_s and row.disturbances and cell.cell_id not in self._repeated:
            logger.info("%s was disturbed: %s; measured again", cell.label, ", ".join(row.disturbances))
            self._repeated.add(cell.cell_id)
            self._folder.append(row, samples)
            self._launcher.repeat(finished, self._settings.cool_down_s)
            return
        del self._running[cell.cell_id]
        self._record(cell, row, samples)

    def _record(self, cell: Cell, row: Row, samples: Samples) -> None:
        if row.status is Status.OOM:
            self._too_large.add(row)
        self._llms.offer(row)
        self._folder.append(row, samples)
        self._progress.finished(cell, row)


class _TooLarge:
    """The cells that ran out of memory."""

    def __init__(self, rows: Collection[Row]) -> None:
        self._sizes: dict[LineKey, set[tuple[int, int, str]]] = {}
        """Pixels, frames and resolution as written, by the axes other than frames and resolution."""
        for row in rows:
            if row.status is Status.OOM:
                self.add(row)

    def add(self, row: Row) -> None:
        frames = int(row.axes.get("frames", 1))
        size = (row.height_px * row.width_px, frames, row.resolution)
        self._sizes.setdefault(_but_frames(line_key(row.axes)), set()).add(size)

    def smaller_than(self, cell: Cell) -> str | None:
        """Describe the smallest of them with no larger images and no more frames; None if there is none."""
        own = cell.height_px * cell.width_px, cell.axes.frames
        for pixels, frames, resolution in sorted(self._sizes.get(_but_frames(cell.line), ())):
            if (pixels, frames) != own and pixels <= own[0] and frames <= own[1]:
                return resolution if frames == own[1] else f"{resolution} with {show_frames(frames)}"
        return None


def _but_frames(line: LineKey) -> LineKey:
    return tuple((name, value) for name, value in line if name != "frames")
