"""One cell from outside: its process started, watched and, however it ends, explained in a row."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from vlmprof.execution import oom
from vlmprof.execution.board import Board, Phase, Reading
from vlmprof.execution.endings import how_it_ended
from vlmprof.execution.processes import Ended, board, call_in_process
from vlmprof.measure.telemetry import Telemetry, nvml_probe
from vlmprof.plan import Cell
from vlmprof.records import Row, Status
from vlmprof.settings import Machine, Settings
from vlmprof.store import Samples

NO_SAMPLES: Samples = {}


def measure_cell(
    cell: Cell,
    settings: Settings,
    machine: Machine,
    log: Path,
    on_reading: Callable[[Reading], None] = lambda reading: None,
    stop: threading.Event | None = None,
) -> tuple[Row, Samples]:
    """Measure `cell` on `settings.device` in a process of its own and return its row and samples.

    `machine` is what `sweep.describe_machine` says. What the process prints is kept in `log` unless all
    went well. Setting `stop` ends it with `processes.StoppedError`.
    """
    where = board()
    telemetry = Telemetry(nvml_probe(machine.device_uuid))

    def watch(pid: int) -> None:
        reading = where.read()
        on_reading(reading)
        if reading.phase is Phase.MEASURING:
            telemetry.poll(pid, reading.iteration)

    early: list[tuple[Row, Samples]] = []
    kills_before = oom.system_oom_kills()
    ended = call_in_process(
        "vlmprof.execution.worker:run_cell",
        (cell, settings, machine.device_name, where),
        log=log,
        timeout_s=settings.cell_timeout_s,
        on_poll=watch,
        on_item=early.append,
        stop=stop,
    )
    if ended.value is None and early:
        # its process was lost in a pass that only adds to what it had measured
        row, samples = early[-1]
        _, why = how_it_ended(ended, f" while {where.read()}", kills_before, settings.cell_timeout_s)
        ended = Ended(value=(replace(row, warnings=(*row.warnings, f"measured, but then: {why}")), samples))
    if ended.value is not None:
        row, samples = ended.value
        seen = asdict(telemetry.summary())
        energy_j = seen.pop("energy_per_iteration_j")
        ceilings = machine.ceilings.get(cell.axes.dtype, {})
        row = replace(
            row,
            disturbances=seen.pop("warnings"),
            energy_per_image_j=None if energy_j is None else energy_j / cell.axes.batch_size,
            **seen,
            **ceilings,
        )
        if row.status is Status.OK:
            log.unlink(missing_ok=True)
        return row, samples
    return _explain(cell, machine, ended, where, kills_before, settings.cell_timeout_s), NO_SAMPLES


def unmeasured_row(cell: Cell, device_name: str, status: Status, message: str) -> Row:
    """The row of a cell that has no numbers, and why."""
    return Row(
        cell_id=cell.cell_id,
        axes=cell.axes.named,
        height_px=cell.height_px,
        width_px=cell.width_px,
        status=status,
        message=message,
        visual_tokens=cell.visual_tokens,
        device=device_name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _explain(
    cell: Cell,
    machine: Machine,
    ended: Ended,
    where: Board,
    kills_before: int | None,
    timeout_s: float | None,
) -> Row:
    """The row of a cell whose process sent no result."""
    reading = where.read()
    status, message = how_it_ended(ended, f" while {reading}", kills_before, timeout_s)
    row = unmeasured_row(cell, machine.device_name, status, message)
    return replace(row, oom_stage=reading.place) if status is Status.OOM else row
