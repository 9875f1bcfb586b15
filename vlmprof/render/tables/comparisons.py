"""Two runs compared, in a table and in sentences, and the reasons why a guard fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vlmprof.analysis.compare import CellRatio, Comparison, Guarded, Lost, Verdict
from vlmprof.analysis.intervals import FEWEST
from vlmprof.analysis.matching import mismatch_words
from vlmprof.manifest import Difference
from vlmprof.records import Status
from vlmprof.render.labels import STATUS_WORDS, backbone_label, oom_words
from vlmprof.render.tables.columns import SCALED, axis_column, varied_names
from vlmprof.render.tables.sheet import Column, Kind, Sheet, interval_values, show
from vlmprof.units import counted, show_resolution

MOST_NAMED = 10
"""Cells listed under one reason; the rest are counted."""


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
        f"unclear. {_spread_words(ratios)}"
    )
    words = {ratio.column: column_words(ratio.column) for ratio in ratios}
    return Sheet("comparison", "Comparison", note, [
        *_cell_columns(ratios),
        Column("figure", Kind.TEXT, [words[r.column][0] for r in ratios], int(len(words) == 1),
               raw=[r.column for r in ratios]),
        Column("A", Kind.TEXT, [show(words[r.column][1], r.a) for r in ratios], 1,
               raw=[r.a for r in ratios]),
        Column("B", Kind.TEXT, [show(words[r.column][1], r.b) for r in ratios], 1,
               raw=[r.b for r in ratios]),
        Column("B / A", Kind.RATIO, [interval_values(r.ratio) or r.value for r in ratios], key="ratio"),
        Column("verdict", Kind.TEXT, [r.verdict and str(r.verdict) for r in ratios]),
    ])  # fmt: skip


def comparison_words(comparison: Comparison) -> list[str]:
    """Summarize a comparison in sentences: verdicts on end-to-end latency, and the cells without one."""
    verdicts = Counter(r.verdict for r in comparison.ratios if r.column == "end_to_end_s")
    counts = [f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict]]
    sentences = [f"End-to-end, B against A: {', '.join(counts)}."] if counts else []
    if comparison.no_verdict:
        sentences.append(f"No verdict on any cell: {comparison.no_verdict}.")
    few = [ratio for ratio in comparison.ratios if ratio.too_few]
    if few:
        cells = len({tuple(ratio.cell.values()) for ratio in few})
        sentences.append(f"No verdict on {counted(cells, 'cell')}: {_needs(few)}.")
    varied = _varied(comparison)
    sentences += [
        f"{_cell_name(lost.cell, varied)} ran in A but not in B: {_ending(lost)}." for lost in comparison.lost
    ]
    sentences += [f"{_cell_name(cell, varied)} ran only in B." for cell in comparison.gained]
    if comparison.only_a or comparison.only_b:
        apart = [one for one in comparison.mismatches if one.ignorable]
        why = f": {mismatch_words(apart)}" if apart else ""
        only_a = counted(comparison.only_a, "cell")
        sentences.append(f"Not matched: {only_a} of A, {comparison.only_b} of B{why}.")
    return sentences


def failure_words(found: Guarded, comparison: Comparison, allowed: str) -> list[str]:
    """Return the reasons why a guard fails, a sentence that sums them up first; empty if it passes."""
    if found.passed:
        return []
    varied = _varied(comparison)
    few = list({tuple(r.cell.values()): r.cell for r in found.untested}.values())
    reasons: list[tuple[str, str, list[str]]] = [
        ("slower", "slower than allowed", [ratio_name(ratio, varied) for ratio in found.slower]),
        ("no longer running", "no longer runs",
         [f"{_cell_name(lost.cell, varied)}, {_ending(lost)}" for lost in found.lost]),
        ("missing in B", "missing in B", [_cell_name(cell, varied) for cell in found.missing]),
        ("without enough samples", f"no verdict, {_needs(found.untested)}",
         [_cell_name(cell, varied) for cell in few]),
    ]  # fmt: skip
    counts = [f"{len(names)} {count}" for count, _, names in reasons if names]
    lines = [f"--fail-slower {allowed} fails: {', '.join(counts)}"]
    for _, reason, names in reasons:
        lines += [f"{reason}: {name}" for name in names[:MOST_NAMED]]
        if len(names) > MOST_NAMED:
            lines.append(f"{reason}: {len(names) - MOST_NAMED} more")
    if found.missing or found.untested:
        lines.append("--allow-missing accepts cells without a verdict")
    return lines


def difference_words(found: Sequence[Difference]) -> str:
    """Say in a sentence in what the settings and environments of two runs differ."""

    def shown(value: object) -> str:
        return "unset" if value is None else ", ".join(value) if isinstance(value, list) else str(value)

    words = (f"{one.name} is {shown(one.a)} in A, {shown(one.b)} in B" for one in found)
    return f"Settings differ: {'; '.join(words)}."


def _ending(lost: Lost) -> str:
    return oom_words(lost.oom_stage) if lost.status is Status.OOM else STATUS_WORDS[lost.status]


def ratio_name(ratio: CellRatio, varied: Sequence[str] = ()) -> str:
    """Describe a ratio: `ViT-T at 512², end-to-end: 1.08× (1.06 to 1.10)`."""
    shown = show(Kind.RATIO, interval_values(ratio.ratio) or ratio.value)
    return f"{_cell_name(ratio.cell, varied)}, {column_words(ratio.column)[0]}: {shown}"


def _needs(few: Sequence[CellRatio]) -> str:
    """Describe how many iterations a verdict needs, and how many there are at least in each run."""
    least = {
        which: min(ratio.too_few[which] for ratio in few if which in ratio.too_few)
        for which in ("A", "B")
        if any(which in ratio.too_few for ratio in few)
    }
    has = " and ".join(
        f"{which} has {count or 'no samples that can be read'}" for which, count in least.items()
    )
    return f"needs at least {FEWEST} iterations, {has}"


def _spread_words(ratios: Sequence[CellRatio]) -> str:
    """Say which spread the intervals cover: within a measurement, or between repeats."""
    kinds = Counter(ratio.repeats for ratio in ratios if ratio.ratio is not None)
    a, b = max(kinds, key=kinds.__getitem__, default=(1, 1))
    if max(a, b) < 2:
        words = "the spread within each run, not between runs (see sweep --repeat)"
    elif min(a, b) > 1:
        words = f"the spread between repeats, {a} in A and {b} in B"
    else:
        many, single = ("A", "B") if a > b else ("B", "A")
        words = f"the spread between the {max(a, b)} repeats in {many}"
        if min(a, b):
            words += f"; {single}, measured once, is taken to vary as much"
    others = "" if len(kinds) < 2 else " Some cells have other numbers of repeats."
    return f"The intervals cover {words}.{others}"


def _varied(comparison: Comparison) -> list[str]:
    """Return the axes other than backbone and resolution in which the compared cells differ."""
    cells = [ratio.cell for ratio in comparison.ratios]
    cells += [*(lost.cell for lost in comparison.lost), *comparison.gained, *comparison.missing]
    return varied_names(cells, beside=("backbone", "resolution"))


def _cell_columns(ratios: Sequence[CellRatio]) -> list[Column]:
    cells = [ratio.cell for ratio in ratios]
    varied = ("backbone", "resolution", *varied_names(cells, beside=("backbone", "resolution")))
    axes = [axis for axis in (cells[0] if cells else ()) if axis in varied]
    return [axis_column(axis, [cell[axis] for cell in cells]) for axis in axes]


def _cell_name(cell: Mapping[str, str], varied: Sequence[str] = ()) -> str:
    """Describe a cell: `ViT-T at 512²`, with the other axes that vary: `…, mode compile`."""
    place = f"{backbone_label(cell.get('backbone', ''))} at {show_resolution(cell.get('resolution', ''))}"
    others = [f"{axis.replace('_', ' ')} {cell[axis]}" for axis in varied if cell.get(axis)]
    return ", ".join([place, *others])
