"""The time of each operator in a traced stage."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vlmprof.files import replacing


@dataclass(frozen=True)
class OperatorTime:
    """All calls of one operator in one stage of a traced iteration."""

    stage: str
    operator: str
    calls: int
    host_s: float
    """Host time in the operator itself, without the operators it calls."""
    gpu_s: float
    """GPU time of the kernels it launched; 0 without a GPU."""


def write_csv(operators: Sequence[OperatorTime], path: Path) -> None:
    """Write the table as CSV, one operator per line."""
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [f.name for f in fields(OperatorTime)])
        writer.writeheader()
        writer.writerows(asdict(operator) for operator in operators)


def longest(operators: Sequence[OperatorTime], stage: str, count: int) -> list[OperatorTime]:
    """Return the `count` longest operators of a stage, by GPU time if there is a GPU."""
    mine = [operator for operator in operators if operator.stage == stage]
    on_gpu = any(operator.gpu_s for operator in mine)
    return sorted(mine, key=lambda o: -(o.gpu_s if on_gpu else o.host_s))[:count]
