"""Tables for decisions: cells worth choosing, and what scores have to do with costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlmprof.analysis.advice import Advice
from vlmprof.analysis.frames import axis_word, numbers
from vlmprof.analysis.levers import lever_prices, levers_of
from vlmprof.errors import joined
from vlmprof.measure.statistics import FEWEST
from vlmprof.records import STAGES
from vlmprof.render.labels import lever_words, value_label
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value, column_values, interval_values
from vlmprof.render.tables.stages import name_columns

COST_WORDS: dict[str, tuple[str, Kind]] = {
    "ttft_s": ("TTFT", Kind.SECONDS),
    "memory_bytes": ("memory", Kind.BYTES),
    "energy_per_image_j": ("energy per image (J)", Kind.NUMBER),
    "cost_per_thousand_images": ("cost per 1,000 images", Kind.NUMBER),
}
"""Titles of a candidate's costs in tables and figures."""

_DETAIL_WORDS = {
    "visual_tokens": "more visual tokens", "frames": "more frames", "weight_prefill_bytes": "a larger LLM",
}  # fmt: skip

LEVER_WORDS: dict[str, tuple[str, Kind]] = {
    "ttft_s": COST_WORDS["ttft_s"],
    **{f"{stage}_s": (stage, Kind.SECONDS) for stage in STAGES},
    "memory_bytes": COST_WORDS["memory_bytes"],
    "energy_per_image_j": COST_WORDS["energy_per_image_j"],
    "visual_tokens": ("visual tokens", Kind.COUNT),
}
"""Titles of what a lever changes."""


def advice_sheet(advice: Advice) -> Sheet:
    """Return a table of the Pareto front within the limits, best first."""
    chosen = advice.chosen

    def values(name: str) -> list[Value]:
        return column_values(numbers(chosen, name))

    quality = _quality_words(advice)
    note = f"The Pareto front within the limits: {quality} is available only at a higher cost."
    if len(chosen) > 1:
        note += " Lever: what changes from the cell in the next row."
    if advice.tolerance:
        note += f" Costs that differ by at most {100 * advice.tolerance:g} % count as equal."
    alike = [
        value_label(axis, axis_word(axis, chosen[axis].iloc[0]))
        for axis in levers_of(advice.cells)
        if axis not in ("backbone", "resolution") and chosen[axis].astype(str).nunique() == 1
    ]
    if alike:  # in no column of the table
        note += f" All of them: {', '.join(alike)}."
    levers = [lever_words(changes) for changes in advice.levers]
    title = "Recommended" if advice.estimated_for is None else f"Estimated for {advice.estimated_for}"
    return Sheet("recommended", title, note, [
        Column("no.", Kind.COUNT, [*range(1, len(chosen) + 1)], 1, key="place"),
        *name_columns(advice.cells.loc[chosen.index]),
        *(Column(name, Kind.NUMBER, values(name), key=name) for name in advice.scores),
        *(Column(*COST_WORDS[cost], values(cost), key=cost) for cost in advice.costs),
        Column("lever", Kind.TEXT, levers, 1),
    ])  # fmt: skip


def _quality_words(advice: Advice) -> str:
    if advice.quality != "pixels":
        return f"a higher {advice.quality}"
    return joined(["a larger image", *(_DETAIL_WORDS[column] for column in advice.detail)], "or")


def lever_sheet(frame: pd.DataFrame, estimated_for: str | None = None) -> Sheet | None:
    """Return a table of the price of every lever of a run; None if its cells have no pairs."""
    prices = lever_prices(frame)
    if not prices:
        return None

    def values(quantity: str) -> list[Value]:
        found = [price.differences.get(quantity) for price in prices]
        return [None if one is None or one.is_zero else interval_values(one.ends) for one in found]

    shares: list[Value] = [
        None if (one := price.differences.get("ttft_s")) is None else one.relative for price in prices
    ]
    known = [name for name in LEVER_WORDS if any(name in price.differences for price in prices)]
    note = (
        "Differences between cells that are equal in every other axis: medians over the pairs, with 95 % "
        f"intervals, or with the range of fewer than {FEWEST} pairs. "
        "Negative: the lever saves; empty: it changes nothing."
    )
    if estimated_for is not None:
        note = f"Estimated for {estimated_for}. {note}"
    return Sheet("levers", "What each lever costs", note, [
        Column("axis", Kind.TEXT, [price.change.axis.replace("_", " ") for price in prices],
               raw=[price.change.axis for price in prices]),
        *(
            Column(title, Kind.TEXT, [value_label(p.change.axis, getattr(p.change, end)) for p in prices],
                   key=end, raw=[getattr(price.change, end) for price in prices])
            for title, end in (("from", "before"), ("to", "after"))
        ),
        Column("pairs", Kind.COUNT, [price.pairs for price in prices]),
        Column("TTFT share", Kind.PERCENT, shares, key="ttft_share"),
        *(Column(*LEVER_WORDS[name], values(name), 0 if name == "ttft_s" else 1, key=name) for name in known),
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
