"""The table of the longest operators of a traced cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmprof.render.tables.sheet import Column, Kind, Sheet

if TYPE_CHECKING:
    from vlmprof.execution.kernel_table import OperatorTime


def operator_sheet(label: str, operators: Sequence[OperatorTime]) -> Sheet:
    """Return one row per operator, in the given order; `label` is the name of the cell."""
    return Sheet("operators", "Operators", "", [
        Column("stage", Kind.TEXT, [o.stage for o in operators]),
        Column("operator", Kind.TEXT, [o.operator for o in operators]),
        Column("calls", Kind.COUNT, [o.calls for o in operators]),
        Column("host", Kind.SECONDS, [o.host_s for o in operators]),
        Column("GPU", Kind.SECONDS, [o.gpu_s or None for o in operators]),
    ], head=label)  # fmt: skip
