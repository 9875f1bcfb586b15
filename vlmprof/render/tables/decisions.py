"""Tables for decisions: cells worth choosing, and what scores have to do with costs."""

from __future__ import annotations

import numpy as np

from vlmprof.analysis.advice import Advice
from vlmprof.analysis.frames import numbers
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value, column_values
from vlmprof.render.tables.stages import name_columns

COST_WORDS: dict[str, tuple[str, Kind]] = {
    "ttft_s": ("TTFT", Kind.SECONDS),
    "memory_bytes": ("memory", Kind.BYTES),
    "energy_per_image_j": ("energy per image (J)", Kind.NUMBER),
    "cost_per_thousand_images": ("cost per 1,000 images", Kind.NUMBER),
}
"""Titles of a candidate's costs in tables and figures."""


def advice_sheet(advice: Advice) -> Sheet:
    """Return a table of the Pareto front within the limits, best first."""
    chosen = advice.chosen

    def values(name: str) -> list[Value]:
        return column_values(numbers(chosen, name))

    quality = "a larger image" if advice.quality == "pixels" else f"a higher {advice.quality}"
    note = f"The Pareto front within the limits: {quality} is available only at a higher cost."
    if advice.tolerance:
        note += f" Costs that differ by at most {100 * advice.tolerance:g} % count as equal."
    return Sheet("recommended", "Recommended", note, [
        *name_columns(advice.cells.loc[chosen.index]),
        *(Column(name, Kind.NUMBER, values(name), key=name) for name in advice.scores),
        *(Column(*COST_WORDS[cost], values(cost), key=cost) for cost in advice.costs),
    ])  # fmt: skip


def correlation_sheet(advice: Advice) -> Sheet | None:
    """Return a table of rank correlations of scores and costs; None with too few cells."""
    matrix = advice.correlation
    if matrix is None:
        return None
    titles = [COST_WORDS[name][0] if name in COST_WORDS else name for name in matrix.columns]
    note = f"Spearman's rank correlation over the {len(advice.candidates)} scored cells."
    values = [column_values(np.asarray(matrix[name], dtype=np.float64)) for name in matrix.columns]
    return Sheet("correlation", "Scores and costs", note, [
        Column("", Kind.TEXT, titles, key="column", raw=list(matrix.columns)),
        *(
            Column(title, Kind.NUMBER, column, key=str(name))
            for title, column, name in zip(titles, values, matrix.columns, strict=True)
        ),
    ])  # fmt: skip
