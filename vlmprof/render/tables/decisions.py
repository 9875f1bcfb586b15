"""Tables for decisions: comparisons of two runs, and cells worth choosing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vlmprof.analysis.advice import Advice
from vlmprof.analysis.compare import CellRatio, Comparison, Verdict
from vlmprof.analysis.frames import numbers, varying_axes
from vlmprof.render.labels import backbone_label
from vlmprof.render.tables.scaling import SCALED
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value, column_values, interval_values, show
from vlmprof.units import show_resolution

COST_WORDS: dict[str, tuple[str, Kind]] = {
    "ttft_s": ("TTFT", Kind.SECONDS),
    "memory_bytes": ("memory", Kind.BYTES),
    "energy_per_image_j": ("energy per image (J)", Kind.NUMBER),
    "cost_per_thousand_images": ("cost per 1,000 images", Kind.NUMBER),
}
"""Titles of a candidate's costs in tables and figures."""


def column_words(column: str) -> tuple[str, Kind]:
    """Return the title and kind of a run's column: (`GPU vision`, seconds) for `gpu_vision_s`."""
    if column in SCALED:
        return SCALED[column]
    clock, _, stage = column.removesuffix("_s").partition("_")
    return f"{'GPU' if clock == 'gpu' else clock} {stage}", Kind.SECONDS


def comparison_sheet(comparison: Comparison) -> Sheet:
    """Return a table of every figure of every common cell, with its ratio and verdict."""
    ratios = comparison.ratios
    margin = f"{100 * comparison.margin:g} %"
    note = (
        "B / A, with the 95 % Welch interval of its logarithm. Same: the 90 % interval is within "
        f"{margin} of 1. Otherwise, faster or slower: the 95 % interval is below or above 1. Otherwise "
        "unclear. The intervals cover the spread within each run, not between runs."
    )
    words = {ratio.column: column_words(ratio.column) for ratio in ratios}
    return Sheet(
        "comparison",
        "Comparison",
        note,
        [
            *_cell_columns(ratios),
            Column("figure", Kind.TEXT, [words[ratio.column][0] for ratio in ratios]),
            Column("A", Kind.TEXT, _shown(ratios, [ratio.a for ratio in ratios])),
            Column("B", Kind.TEXT, _shown(ratios, [ratio.b for ratio in ratios])),
            Column("B / A", Kind.RATIO, [interval_values(r.ratio) or r.value for r in ratios]),
            Column("verdict", Kind.TEXT, [ratio.verdict and str(ratio.verdict) for ratio in ratios]),
        ],
    )


def comparison_words(comparison: Comparison) -> list[str]:
    """Summarize a comparison in sentences: verdicts on end-to-end latency; lost, gained, unmatched cells."""
    verdicts = Counter(r.verdict for r in comparison.ratios if r.column == "end_to_end_s")
    counts = [f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict]]
    sentences = [f"End-to-end, B against A: {', '.join(counts)}."] if counts else []
    if comparison.no_verdict:
        sentences.append(f"No verdict on any cell: {comparison.no_verdict}.")
    for cells, words in (
        (comparison.lost, "ran in A but not in B"),
        (comparison.gained, "ran only in B"),
    ):
        sentences += [f"{_cell_name(cell)} {words}." for cell in cells]
    if comparison.only_a or comparison.only_b:
        sentences.append(f"Not matched: {comparison.only_a} cells of A, {comparison.only_b} of B.")
    return sentences


def ratio_name(ratio: CellRatio) -> str:
    """Describe a ratio: `ViT-T at 512², end-to-end: 1.08× (1.06 to 1.10)`."""
    shown = show(Kind.RATIO, interval_values(ratio.ratio) or ratio.value)
    return f"{_cell_name(ratio.cell)}, {column_words(ratio.column)[0]}: {shown}"


def advice_sheet(advice: Advice) -> Sheet:
    """Return a table of the Pareto front within the limits, best first."""
    chosen = advice.chosen
    quality = "a larger image" if advice.quality == "pixels" else f"a higher {advice.quality}"
    note = f"The Pareto front within the limits: {quality} is available only at a higher cost."
    if advice.tolerance:
        note += f" Costs that differ by at most {100 * advice.tolerance:g} % count as equal."
    return Sheet("recommended", "Recommended", note, [
        *_named(advice.cells.loc[chosen.index]),
        *(Column(name, Kind.NUMBER, column_values(numbers(chosen, name))) for name in advice.scores),
        *(Column(*COST_WORDS[cost], column_values(numbers(chosen, cost))) for cost in advice.costs),
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
        Column("", Kind.TEXT, titles),
        *(Column(title, Kind.NUMBER, column) for title, column in zip(titles, values, strict=True)),
    ])  # fmt: skip


def _named(rows: pd.DataFrame) -> list[Column]:
    return [
        Column("backbone", Kind.TEXT, [backbone_label(str(name)) for name in rows["backbone"]]),
        Column("resolution", Kind.TEXT, [show_resolution(name) for name in rows["resolution"]]),
        *(
            Column(axis.replace("_", " "), Kind.TEXT, [str(value) for value in rows[axis]])
            for axis in varying_axes(rows)
        ),
    ]


def _cell_columns(ratios: Sequence[CellRatio]) -> list[Column]:
    axes = list(ratios[0].cell) if ratios else []
    shown = {"backbone": backbone_label, "resolution": show_resolution}
    columns = []
    for axis in axes:
        values = [ratio.cell[axis] for ratio in ratios]
        if axis in shown or len(set(values)) > 1:
            words: list[Value] = [shown[axis](value) if axis in shown else value for value in values]
            columns.append(Column(axis.replace("_", " "), Kind.TEXT, words))
    return columns


def _shown(ratios: Sequence[CellRatio], values: Sequence[float]) -> list[Value]:
    """Format values with their units, because latency and memory share a column."""
    return [show(column_words(r.column)[1], value) for r, value in zip(ratios, values, strict=True)]


def _cell_name(cell: Mapping[str, str]) -> str:
    return f"{backbone_label(cell.get('backbone', ''))} at {show_resolution(cell.get('resolution', ''))}"
