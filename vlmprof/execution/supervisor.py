"""Supervision of one cell: start its process, watch it, and turn any outcome into a row."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from vlmprof.execution.ceilings import with_ceilings
from vlmprof.execution.endings import how_it_ended
from vlmprof.execution.processes import call_in_process, status_board
from vlmprof.execution.rows import unmeasured_row
from vlmprof.execution.status_board import Reading
from vlmprof.measure import oom
from vlmprof.measure.observer import Phase
from vlmprof.measure.samples import Samples
from vlmprof.measure.telemetry import Telemetry, nvml_probe
from vlmprof.plan import Cell
from vlmprof.records import Row, Status
from vlmprof.settings import Machine, Settings

logger = logging.getLogger(__name__)


def measure_cell(
    cell: Cell,
    settings: Settings,
    machine: Machine,
    log: Path,
    on_reading: Callable[[Reading], None] = lambda reading: None,
    stop: threading.Event | None = None,
) -> tuple[Row, Samples]:
    """Measure `cell` on `settings.device` in a separate process and return its row and samples.

    Args:
        machine: The result of `describe_machine` for that device.
        log: Receives the output of the process, and is removed if the cell is `ok`.
        on_reading: Called a few times a second with the status of the process.
        stop: Ends the process with `processes.StoppedError` when set.
    """
    logger.info("%s begins on %s", cell.label, settings.device)
    board = status_board()
    telemetry = Telemetry(nvml_probe(machine.device_uuid))

    def watch(pid: int) -> None:
        reading = board.read()
        on_reading(reading)
        if reading.phase is Phase.MEASURING:
            telemetry.poll(pid, reading.iteration)

    early: list[tuple[Row, Samples]] = []
    kills_before = oom.system_oom_kills()
    call = partial(
        call_in_process,
        "vlmprof.execution.worker:run_cell",
        (cell, settings, machine.device_name, board),
        log=log,
        timeout_s=settings.cell_timeout_s,
        on_poll=watch,
        on_item=early.append,
        stop=stop,
    )
    ended = call()
    again: tuple[str, ...] = ()
    if ended.server_died and not early:
        logger.warning("%s runs again, because the fork server died", cell.label)
        again = ("measured again, because the fork server died",)
        ended = call()
    if ended.value is not None or early:
        row, samples = ended.value or early[-1]
        row = _with_machine(replace(row, warnings=(*row.warnings, *again)), telemetry, machine, cell)
    else:
        row, samples = unmeasured_row(cell, machine.device_name), Samples()
    if ended.value is None:
        last = board.read()
        status, why = how_it_ended(
            ended, f" while {last}", kills_before, settings.cell_timeout_s, settings.memory_limit_bytes
        )
        if early:  # lost in a pass that only adds to the measurement
            row = replace(row, warnings=(*row.warnings, f"failed after the measurement: {why}"))
        else:
            oom_stage = last.place if status is Status.OOM else None
            row = replace(row, status=status, message=why, oom_stage=oom_stage)
    if row.status is Status.OK:
        log.unlink(missing_ok=True)
    logger.info("%s ended: %s%s", cell.label, row.status, f", {row.message}" if row.message else "")
    return row, samples


def _with_machine(row: Row, telemetry: Telemetry, machine: Machine, cell: Cell) -> Row:
    """Add the machine's state during the measurement, and its ceilings."""
    seen = asdict(telemetry.summary())
    energy_j = seen.pop("energy_per_iteration_j")
    observed = replace(
        row,
        disturbances=seen.pop("warnings"),
        energy_per_image_j=None if energy_j is None else energy_j / cell.axes.batch_size,
        **seen,
    )
    return with_ceilings(observed, machine.ceilings)
