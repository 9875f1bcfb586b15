"""Rows without measurements."""

from __future__ import annotations

from datetime import UTC, datetime

from vlmprof.plan import Cell
from vlmprof.records import Row, Status


def unmeasured_row(
    cell: Cell, device_name: str, status: Status = Status.OK, message: str | None = None
) -> Row:
    """Build a row without numbers: the cell, its device and start time, its status and the reason."""
    return Row(
        cell_id=cell.cell_id,
        axes=cell.axes.named,
        height_px=cell.height_px,
        width_px=cell.width_px,
        status=status,
        repeat=cell.repeat,
        message=message,
        visual_tokens=cell.visual_tokens,
        encoder_tokens=cell.encoder_tokens,
        tiles=cell.tiles,
        device=device_name,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
