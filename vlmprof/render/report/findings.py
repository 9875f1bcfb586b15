"""The summary of a run in sentences, each with its interval and the section that has its table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import MOST_LINES, Line, count_lines, split_lines
from vlmprof.analysis.intervals import Interval
from vlmprof.analysis.levers import LeverPrice
from vlmprof.analysis.runs import Run
from vlmprof.analysis.summary import (
    ABOVE,
    Bound,
    Doubts,
    Limit,
    Measured,
    MemoryEnd,
    Ranking,
    Summary,
    summarize,
)
from vlmprof.errors import joined
from vlmprof.render.labels import line_label, oom_words
from vlmprof.render.report.levers import lever_sentence
from vlmprof.render.tables.sheet import Kind, interval_values, percent_width, show
from vlmprof.units import counted

MOST = 4
"""Largest number of sentences on one subject, and of names in one sentence; the tables have the others."""


@dataclass(frozen=True)
class Finding:
    """One sentence of the summary."""

    text: str
    anchor: str
    """The section of the report with its table."""


def run_findings(run: Run) -> list[Finding]:
    """Word the summary of a run, and say which part of a large one it covers."""
    estimates = Estimates(run.frame, run.samples)
    found = findings(summarize(estimates, split_lines(run.frame, most=MOST_LINES)))
    if (every := count_lines(run.frame)) > MOST_LINES:
        words = f"These sentences cover the first {MOST_LINES} of {every:,} lines, backbones in turn."
        found.append(Finding(words, "cells"))
    return found


def findings(summary: Summary) -> list[Finding]:
    """Word a summary: the cheapest encoders, crossovers, the encoder's share, limits, memory, doubts."""
    several = any(ranking.tied or ranking.next for group in summary.latency for ranking in group)
    found = [Finding(text, "levers") for text in _levers(summary.levers)]
    for groups, tell in ((summary.latency, _cheapest), (summary.memory, _smallest)):
        told = groups if len(groups) <= MOST else groups[:1]
        found += [Finding(text, "cells") for group in told for text in _told(group, tell)]
        if len(told) < len(groups):
            others = f"The encoders in {len(groups) - 1} more settings of the other axes are in the table."
            found.append(Finding(others, "cells"))
    found += [Finding(text, "crossovers") for text in _crossovers(summary, several)]
    found += [Finding(text, "time") for text in _shares(summary.shares)]
    found += [Finding(text, "time") for text in _limits(summary.limits)]
    found += [Finding(text, "frontier") for text in _memory_ends(summary.memory_ends, summary.largest)]
    return [*found, Finding(_doubts(summary.doubts), "warnings")]


def _told(group: Sequence[Ranking], tell: Callable[[list[Ranking]], str]) -> list[str]:
    """Tell each span of sizes with the same lines in front; of many spans, only the first and the last."""
    by_front = itertools.groupby(group, lambda ranking: {one.line.key for one in ranking.front})
    spans = [list(span) for _, span in by_front]
    if len(spans) <= MOST:
        return [text for span in spans if (text := tell(span))]
    between = f"Between these sizes, the order changes {len(spans) - 1} times; the table has every size."
    return [tell(spans[0]), tell(spans[-1]), between]


def _cheapest(span: Sequence[Ranking]) -> str:
    last = span[-1]
    front = last.front
    names = [line_label(one.line) for one in front]
    took = _ends(Kind.SECONDS, [ranking.cheapest for ranking in span])
    size = last.cheapest.resolution
    if len(front) > 1:
        why = "" if all(one.value.is_known for one in front) else ", because intervals are unknown"
        values = _names([_value(Kind.SECONDS, one) for one in front])
        return (
            f"{_sizes(span)}, no difference in end-to-end latency is shown between {_names(names)}{why}; "
            f"at {size}, they take {values}."
        )
    if last.next is None:
        return f"{names[0]} takes {took} end to end."
    rival = f"{line_label(last.next.line)}, takes {_value(Kind.SECONDS, last.next)}"
    where = f" at {size}" if len(span) > 1 else ""
    return f"{_sizes(span)}, {names[0]} is the fastest end to end with {took}; the next, {rival}{where}."


def _smallest(span: Sequence[Ranking]) -> str:
    """Name the lines with the least memory; nothing if there is only one line."""
    front = span[-1].front
    if len(front) == 1 and span[-1].next is None:
        return ""
    verb, equal = ("needs", "") if len(front) == 1 else ("need", ", equal within 2 %")
    names = _names([line_label(one.line) for one in front])
    peaks = _ends(Kind.BYTES, [ranking.cheapest for ranking in span])
    return (
        f"{_sizes(span)}, {names} {verb} the least memory{equal}: "
        f"a peak of {peaks}, from one reading per cell and so without an interval."
    )


def _crossovers(summary: Summary, several: bool) -> Iterator[str]:
    found, undecided = summary.crossovers, summary.undecided_crossovers
    if not found and not undecided and several:
        yield "No encoder overtakes another end to end within the measured sizes."
    for one in found[:MOST]:
        at = _size(one.cheaper_below, [one.size, one.low_size, one.high_size])
        ends = {"smallest": one.open_below, "largest": one.open_above}
        reaches = "".join(f"; the interval reaches the {end} size" for end in ends if ends[end])
        above, below = line_label(one.cheaper_above), line_label(one.cheaper_below)
        yield f"Above {at}, {above} is faster end to end than {below}{reaches}."
    if len(found) > MOST:
        yield f"{len(found) - MOST} more crossovers are in the table."
    if undecided:
        are = "1 crossover is" if undecided == 1 else f"{undecided} crossovers are"
        yield f"{are} possible within the measured sizes, but not shown: the intervals are open or unknown."


def _levers(prices: Sequence[LeverPrice]) -> Iterator[str]:
    """Tell the first changes of each axis."""
    by_axis: dict[str, list[LeverPrice]] = {}
    for price in prices:
        by_axis.setdefault(price.change.axis, []).append(price)
    for axis, own in by_axis.items():
        yield from (lever_sentence(price) for price in own[:MOST])
        if (more := len(own) - MOST) > 0:
            words = "change of {} is" if more == 1 else "changes of {} are"
            yield f"{more} more {words.format(axis.replace('_', ' '))} in the table."


def _shares(shares: Sequence[Measured]) -> Iterator[str]:
    by_size: dict[str, list[Measured]] = {}
    for one in sorted(shares, key=lambda one: one.size):
        by_size.setdefault(one.resolution, []).append(one)
    sizes = list(by_size)
    for size in dict.fromkeys([*sizes[:1], *sizes[-1:]]):
        own = sorted(by_size[size], key=lambda one: one.value.value)
        ends = [own[0], own[-1]] if len(own) > 1 else own
        words = [f"{_value(Kind.PERCENT, one)} with {line_label(one.line)}" for one in ends]
        if len(words) == 1:
            yield f"At {size}, the encoder's share of end-to-end latency is {words[0]}."
        elif ends[1].value.low <= ends[0].value.high:
            share = "no difference in the encoder's share of end-to-end latency is shown between encoders"
            yield f"At {size}, {share}: it is {words[0]} and {words[1]}."
        else:
            yield f"At {size}, the encoder's share of end-to-end latency ranges from {' to '.join(words)}."


def _limits(limits: Sequence[Limit]) -> Iterator[str]:
    groups: dict[tuple[str, Bound], list[Limit]] = {}
    for limit in sorted(limits, key=lambda limit: limit.at.size):
        groups.setdefault((limit.at.resolution, limit.bound), []).append(limit)
    for (size, bound), group in groups.items():
        own = sorted(group, key=lambda limit: limit.share.value)
        names = _names([line_label(one.at.line) for one in own])
        reached = [_share(own[0].share), _share(own[-1].share)]
        reach = reached[0] if len(own) == 1 else f"between {reached[0]} and {reached[1]}"
        encoders = "the encoder reaches" if len(own) == 1 else "the encoders reach"
        if bound == "launches":
            yield f"At {size}, kernel launches limit {names}: the GPU waits for the CPU ({reach})."
        elif bound == "neither":
            why = f"{encoders} {reach} of a ceiling"
            yield f"At {size}, neither arithmetic nor memory traffic limits {names}: {why}."
        else:
            rate = "a large matrix product" if bound == "arithmetic" else "a large copy"
            why = f"{encoders} {reach} of the rate of {rate}"
            if bound == "arithmetic" and own[-1].share.value >= ABOVE:
                yield f"At {size}, it is unknown what limits {names}: {why}, which other load had lowered."
            else:
                yield f"At {size}, {bound} limits {names}: {why}."


def _memory_ends(ends: Sequence[MemoryEnd], largest: Measured | None) -> Iterator[str]:
    if not ends and largest is not None:
        what = "image" if largest.line.along == "resolution" else "video"
        yield f"No encoder ran out of memory up to {largest.resolution}, the largest {what} measured."
    for end in ends[:MOST]:
        assert end.line.first_oom is not None
        before = "no smaller size ran"
        if end.largest is not None:
            before = f"{end.largest.resolution} ran with {show(Kind.BYTES, end.largest.value.value)}"
        first = end.line.first_oom
        yield f"{line_label(end.line)} runs {oom_words(first.stage)} at {first.label}; {before}."
    if len(ends) > MOST:
        yield f"{len(ends) - MOST} more encoders ran out of memory."


def _doubts(doubts: Doubts) -> str:
    def of(count: int, singular: str, plural: str) -> list[str]:
        verb = singular if count == 1 else plural
        return [f"{count} of {doubts.measured} measurements {verb}"] if count else []

    said = [
        *([f"{counted(doubts.failed, 'cell')} failed"] if doubts.failed else []),
        *of(doubts.disturbed, "was disturbed", "were disturbed"),
        *of(doubts.warned, "has warnings about samples or output", "have warnings about samples or output"),
        *of(doubts.without_interval, "has no interval", "have no interval"),
        *of(doubts.above_ceiling, "exceeds its ceiling", "exceed their ceilings"),
    ]
    text = "No measurement failed, was disturbed or has a warning."
    if said:
        text = f"Doubtful: {'; '.join(said)}."
    elif not doubts.measured:
        text = "No cell was measured."
    if doubts.widest is None:
        return text
    value = doubts.widest.value
    half = 100 * (value.high - value.low) / 2 / value.value
    place = f"{line_label(doubts.widest.line)} at {doubts.widest.resolution}"
    return f"{text} The widest end-to-end interval is ± {percent_width(half)} ({place})."


def _size(line: Line, sizes: list[float]) -> str:
    """Show a size of a line and its interval."""
    return show(Kind.PIXELS, sizes) if line.along == "resolution" else f"{show(Kind.NUMBER, sizes)} frames"


def _value(kind: Kind, one: Measured) -> str:
    if one.value.is_known:
        return show(kind, interval_values(one.value))
    return f"{show(kind, one.value.value)} (interval unknown)"


def _share(share: Interval) -> str:
    return show(Kind.PERCENT, interval_values(share) if share.is_known else share.value)


def _ends(kind: Kind, values: Sequence[Measured]) -> str:
    """Show the first and the last value with their sizes, or the only one."""
    shown = [show(kind, one.value.value) if kind is Kind.BYTES else _value(kind, one) for one in values]
    if len(values) == 1:
        return shown[0]
    return f"{shown[0]} at {values[0].resolution} and {shown[-1]} at {values[-1].resolution}"


def _sizes(span: Sequence[Ranking]) -> str:
    first, last = span[0].cheapest.resolution, span[-1].cheapest.resolution
    return f"At {first}" if first == last else f"From {first} to {last}"


def _names(words: Sequence[str]) -> str:
    return joined([*words[:MOST], *([f"{len(words) - MOST} more"] if len(words) > MOST else [])])
