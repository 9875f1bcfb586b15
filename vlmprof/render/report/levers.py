"""The marginal price of levers in sentences."""

from __future__ import annotations

from vlmprof.analysis.intervals import Interval
from vlmprof.analysis.levers import Difference, LeverPrice
from vlmprof.errors import joined
from vlmprof.measure.statistics import FEWEST
from vlmprof.records import STAGES
from vlmprof.render.labels import value_label
from vlmprof.render.tables.sheet import Kind, interval_values, show

LEAST_SHARE = 0.001
"""Smallest change of a stage that a sentence names, as a share of the largest."""


def lever_sentence(price: LeverPrice, estimated: bool = False) -> str:
    """Say what a lever saves and costs: `pixel-shuffle2 instead of mlp2 saves 61 ms in prefill …`."""
    change = price.change
    after, before = (value_label(change.axis, value) for value in (change.after, change.before))
    stages = {s: price.differences[f"{s}_s"] for s in STAGES if f"{s}_s" in price.differences}
    largest = max((abs(d.median) for d in stages.values()), default=0.0)
    told = {s: d for s, d in stages.items() if d.shown and abs(d.median) > LEAST_SHARE * largest}
    saved = [f"{_amount(d)} in {s}" for s, d in told.items() if d.median < 0]
    spent = [f"{_amount(d)} in {s}" for s, d in told.items() if d.median > 0]
    verbs = [f"{verb} {joined(words)}" for verb, words in (("saves", saved), ("costs", spent)) if words]
    doing = " and ".join(verbs) or "changes no stage by more than its spread"
    total = "; ".join(_totals(price))
    kind = "estimated, " if estimated else ""
    if price.pairs == 1:
        basis = f"{kind}one pair"
    else:
        ends = "95 % intervals" if price.has_interval else f"ranges, fewer than {FEWEST} pairs"
        basis = f"{kind}medians of {price.pairs} pairs; in brackets: {ends}"
    return f"{after} instead of {before} {doing}{f'; {total}' if total else ''} ({basis})."


def _totals(price: LeverPrice) -> list[str]:
    said = []
    for name, title, words, kind in (
        ("ttft_s", "TTFT", ("shorter", "longer"), Kind.SECONDS),
        ("memory_bytes", "memory", ("lower", "higher"), Kind.BYTES),
        ("energy_per_image_j", "energy per image", ("lower", "higher"), Kind.NUMBER),
    ):
        one = price.differences.get(name)
        if one is not None and one.shown:
            unit = " J" if name == "energy_per_image_j" else ""
            percent = ""
            if one.relative is not None:
                percent = f" ({100 * one.relative:+.0f} %)".replace("-", "−")
            said.append(f"{title} is {_amount(one, kind)}{unit} {words[one.median > 0]}{percent}")
    return said


def _amount(difference: Difference, kind: Kind = Kind.SECONDS) -> str:
    """Show the size of a difference with its ends."""
    ends = difference.ends
    if ends.value < 0:
        ends = Interval(-ends.value, -ends.high, -ends.low)
    value = show(kind, ends.value)
    shown_alike = value == show(kind, ends.low) == show(kind, ends.high)
    return value if shown_alike else show(kind, interval_values(ends))
