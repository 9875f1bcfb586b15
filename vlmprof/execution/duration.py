"""How long a sweep takes: estimated from counted costs before it begins, and corrected as cells end."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence

from vlmprof.backbones import catalog
from vlmprof.execution.processes import call_in_process
from vlmprof.plan import Cell
from vlmprof.settings import Machine, Settings

logger = logging.getLogger(__name__)

WORTH_COUNTING = 4
"""Fewest cells to estimate before a sweep begins; a shorter one soon shows how long its cells take."""
PATIENCE_S = 20.0
"""Longest time to count for."""
START_S = 1.5
"""Time to start a cell's process and to build a small model."""
USUAL_ITERATIONS = 20
"""Typical number of iterations of adaptive sampling."""


def expected_seconds(cells: Sequence[Cell], settings: Settings, machine: Machine) -> dict[str, float]:
    """Estimate how long each cell takes, by cell id; empty if that cannot be estimated.

    A user's own modules run only in the process of a cell, and rates come from the machine's ceilings, so
    cells of such modules, of complete VLMs and on machines without ceilings are left out.
    """
    known = [
        cell
        for cell in cells
        if cell.skip_reason is None
        and cell.axes.vlm is None
        and cell.axes.backbone in catalog.ENTRIES
        and cell.axes.dtype in machine.ceilings
    ]
    if len(known) < WORTH_COUNTING:
        return {}
    target = "vlmprof.execution.duration_counting:iteration_seconds"
    ended = call_in_process(target, (known, settings, dict(machine.ceilings)), timeout_s=PATIENCE_S)
    if ended.value is None:
        logger.info("the duration is not known before the first cell: %s", ended.error or ended.user_error)
        return {}
    return {cell_id: cell_seconds(settings, one) for cell_id, one in ended.value.items()}


def cell_seconds(settings: Settings, iteration_s: float) -> float:
    """Estimate how long a cell takes whose iterations take `iteration_s`."""
    after = 1 + settings.profile  # the pass for each stage's memory, and the profiler's
    if settings.warm_up is not None:
        warm_up_s = max(1, settings.warm_up) * iteration_s
    else:
        warm_up_s = max(2 * iteration_s, min(max(0.5, 7 * iteration_s), 5.0, settings.budget_s / 3))
    if settings.sampling == "fixed":
        sampling_s = (settings.iterations or 1) * iteration_s
    else:
        usual_s = max(settings.least_s, USUAL_ITERATIONS * iteration_s)
        sampling_s = max(2 * iteration_s, min(usual_s, settings.budget_s))
    return START_S + warm_up_s + sampling_s + after * iteration_s


class TimeLeft:
    """Estimates the remaining time of a sweep.

    With an estimate of each cell, the remaining ones are corrected by the ratio of measured to estimated time
    so far. Without, the time of a cell is modelled as a constant plus a term proportional to its tokens, both
    fitted by least squares to the cells measured so far.
    """

    def __init__(self, todo: Sequence[Cell], expected_s: Mapping[str, float] = {}) -> None:
        self._left = {cell.cell_id: _tokens(cell) for cell in todo if cell.skip_reason is None}
        self._expected_s = expected_s
        self._done: list[tuple[str, int, float]] = []

    def finished(self, cell: Cell, seconds: float, ran: bool) -> None:
        """Record a cell that ended after `seconds`; `ran` is False for a skipped cell."""
        self._left.pop(cell.cell_id, None)
        if ran:
            self._done.append((cell.cell_id, _tokens(cell), seconds))

    def seconds(self, running_s: float = 0.0) -> float | None:
        """Return the remaining seconds, or None if nothing is known of a cell."""
        rest = self._corrected() if self._left.keys() <= self._expected_s.keys() else self._fitted()
        return None if rest is None else max(rest - running_s, 0.0)

    def _corrected(self) -> float:
        pairs = [(seconds, self._expected_s.get(cell_id)) for cell_id, _, seconds in self._done]
        known = [(seconds, expected) for seconds, expected in pairs if expected]
        took, expected = math.fsum(pair[0] for pair in known), math.fsum(pair[1] for pair in known)
        ratio = took / expected if expected else 1.0
        return ratio * math.fsum(self._expected_s[cell_id] for cell_id in self._left)

    def _fitted(self) -> float | None:
        if not self._done:
            return None
        n = len(self._done)
        mean_x = sum(x for _, x, _ in self._done) / n
        mean_y = sum(y for *_, y in self._done) / n
        spread = sum((x - mean_x) ** 2 for _, x, _ in self._done)
        slope = sum((x - mean_x) * (y - mean_y) for _, x, y in self._done) / spread if spread else 0.0
        slope = min(max(slope, 0.0), mean_y / mean_x if mean_x else 0.0)
        return sum(mean_y + slope * (tokens - mean_x) for tokens in self._left.values())


def total_seconds(cells: Collection[Cell], expected_s: Mapping[str, float], devices: int = 1) -> float | None:
    """Return the estimated duration of all cells that run; None if that of one is not known."""
    run = [cell.cell_id for cell in cells if cell.skip_reason is None]
    known = run and expected_s.keys() >= set(run)
    return math.fsum(expected_s[cell_id] for cell_id in run) / devices if known else None


def _tokens(cell: Cell) -> int:
    return (cell.encoder_tokens or cell.visual_tokens or 0) * cell.axes.batch_size
