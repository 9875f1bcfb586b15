"""Drives a plan cell by cell: runs, skips, records, resumes."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmprof.environment import host_facts
from vlmprof.errors import UserError
from vlmprof.execution import limits, oom, sharing
from vlmprof.execution.board import Board, Phase
from vlmprof.execution.processes import Ended, board, call_in_process, first_line
from vlmprof.execution.progress import Progress
from vlmprof.measure.telemetry import Telemetry, nvml_probe
from vlmprof.plan import Cell, in_order, make_plan
from vlmprof.records import Row, Status
from vlmprof.spec import SweepSpec
from vlmprof.store import RunFolder, Samples

NO_SAMPLES: Samples = {}


@dataclass(frozen=True)
class SweepOutcome:
    """What a call of `run_sweep` did."""

    measured: int
    kept: int
    """Cells that an earlier call had already finished."""


def describe_machine(device: str) -> dict[str, Any]:
    """The environment of a run. The device is looked at from a process of its own, so that this one
    stays free of torch and the fork server free of any device.

    Raises `UserError` when `device` is not there.
    """
    ended = call_in_process("vlmprof.environment:accelerator_facts", (device,))
    if ended.user_error:
        raise UserError(ended.user_error)
    if ended.value is None:
        why = ended.error or f"the process that looked at it ended with code {ended.exit_code}"
        raise UserError(f"device {device!r} cannot be used: {why}")
    return {**host_facts(), **ended.value}


def run_sweep(
    spec: SweepSpec, out: Path, command: str, progress: Progress, retry: Collection[Status] = ()
) -> SweepOutcome:
    """Run every cell of `spec` that `out` has no row of yet; rows with a status in `retry` count as none.

    Raises `UserError` before anything is measured if the specification cannot be run here, and
    `KeyboardInterrupt` when interrupted, with every finished cell on disk.
    """
    cells = in_order(make_plan(spec), spec.fixed["order"], spec.fixed["seed"])
    machine = describe_machine(spec.fixed["device"])
    fixed = {**spec.fixed, "device": machine["device"]}
    if fixed["memory_limit"]:
        kind = str(machine["device"]).split(":")[0]
        limits.check_memory_limit(fixed["memory_limit"], kind, machine["device_memory_bytes"])
    shown = {key: value for key, value in machine.items() if key != "device_uuid"}
    manifest = {"spec": spec.to_json(), "command": command, "environment": shown}
    with RunFolder(out, manifest) as folder, progress:
        again = {Status.SKIPPED, *retry} if fixed["run_after_oom"] else set(retry)
        done = {cell_id: row for cell_id, row in folder.rows().items() if row.status not in again}
        todo = [cell for cell in cells if cell.cell_id not in done]
        progress.begin(todo, kept=len(cells) - len(todo))
        too_large = _smallest_oom(done.values())
        llms = sharing.SharedLLM(fixed["share_llm"] and "prefill" in fixed["stages"], done.values())
        for cell in todo:
            reason, samples = cell.skip_reason, NO_SAMPLES
            smallest = too_large.get(cell.line)
            if smallest and not fixed["run_after_oom"] and _area(cell) > smallest[0]:
                reason = f"out of memory at {smallest[1]} already"
            if reason is not None:
                row = _row(cell, machine, Status.SKIPPED, reason)
            else:
                row, samples = _run_sharing(cell, fixed, machine, folder, progress, llms)
                if fixed["cool_down"] and row.disturbances:
                    folder.append(row, samples)
                    time.sleep(fixed["cool_down"])
                    row, samples = _run_sharing(cell, fixed, machine, folder, progress, llms)
            if row.status is Status.OOM:
                too_large[cell.line] = min(too_large.get(cell.line, _size(row)), _size(row))
            llms.offer(row)
            folder.append(row, samples)
            progress.finished(cell, row)
    return SweepOutcome(measured=len(todo), kept=len(cells) - len(todo))


def _run_sharing(
    cell: Cell,
    fixed: Mapping[str, Any],
    machine: Mapping[str, Any],
    folder: RunFolder,
    progress: Progress,
    llms: sharing.SharedLLM,
) -> tuple[Row, Samples]:
    """Measure a cell, or the part of it that no other cell has measured already."""
    donor = llms.donor(cell)
    if donor is None:
        return _run(cell, fixed, machine, folder, progress)
    row, samples = _run(cell, sharing.without_llm(fixed), machine, folder, progress)
    if row.status is not Status.OK:
        return row, samples
    return sharing.complete(row, samples, donor, folder.samples(donor.cell_id))


def _run(
    cell: Cell, fixed: Mapping[str, Any], machine: Mapping[str, Any], folder: RunFolder, progress: Progress
) -> tuple[Row, Samples]:
    """Measure a cell in a process of its own. However that ends, there is a row."""
    where = board()
    telemetry = Telemetry(nvml_probe(machine["device_uuid"]))

    def watch(pid: int) -> None:
        reading = where.read()
        progress.tick(cell, reading)
        if reading.phase is Phase.MEASURING:
            telemetry.poll(pid, reading.iteration)

    kills_before = oom.system_oom_kills()
    log = folder.log_path(cell.cell_id)
    ended = call_in_process(
        "vlmprof.execution.worker:run_cell",
        (cell, fixed, machine["device_name"], where),
        log=log,
        timeout_s=fixed["cell_timeout"],
        on_poll=watch,
    )
    if ended.value is not None:
        row, samples = ended.value
        seen = asdict(telemetry.summary())
        row = replace(row, disturbances=seen.pop("warnings"), **seen)
        if row.status is Status.OK:
            log.unlink(missing_ok=True)
        return row, samples
    return _explain(cell, machine, ended, where, kills_before, fixed["cell_timeout"]), NO_SAMPLES


def _explain(
    cell: Cell,
    machine: Mapping[str, Any],
    ended: Ended,
    where: Board,
    kills_before: int | None,
    timeout_s: float | None,
) -> Row:
    """The row of a cell whose process sent no result."""
    reading = where.read()
    at = f"while {reading}"
    if ended.timed_out:
        return _row(cell, machine, Status.TIMEOUT, f"longer than {timeout_s:g} s, stopped {at}")
    if ended.error or ended.user_error:
        return _row(cell, machine, Status.ERROR, ended.error or ended.user_error or "")
    code = ended.exit_code or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        kills = oom.system_oom_kills()
        if kills is None or kills != kills_before:
            row = _row(cell, machine, Status.OOM, f"killed by the system for want of memory {at}")
            return replace(row, oom_stage=reading.place)
        return _row(cell, machine, Status.ERROR, f"its process was killed (SIGKILL) from outside {at}")
    if oom.says_out_of_memory(ended.last_words):
        last = first_line(ended.last_words.splitlines()[-1])
        return replace(_row(cell, machine, Status.OOM, f"{last} ({name} {at})"), oom_stage=reading.place)
    return _row(cell, machine, Status.ERROR, f"its process ended with {name} {at}")


def _row(cell: Cell, machine: Mapping[str, Any], status: Status, message: str) -> Row:
    return Row(
        cell_id=cell.cell_id, axes=cell.axes, height_px=cell.height_px, width_px=cell.width_px,
        status=status, message=message, visual_tokens=cell.visual_tokens, device=machine["device_name"],
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _smallest_oom(rows: Collection[Row]) -> dict[Any, tuple[int, str]]:
    """For each line, the smallest image (pixels, resolution as written) that did not fit."""
    smallest: dict[Any, tuple[int, str]] = {}
    for row in rows:
        if row.status is Status.OOM:
            line = tuple((name, value) for name, value in row.axes.items() if name != "resolution")
            smallest[line] = min(smallest.get(line, _size(row)), _size(row))
    return smallest


def _size(row: Row) -> tuple[int, str]:
    return row.height_px * row.width_px, str(row.axes["resolution"])


def _area(cell: Cell) -> int:
    return cell.height_px * cell.width_px
