"""The content of a report, independent of its format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from vlmprof.analysis.charts import Charts, fitted_panels, stage_stacks
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import MOST_LINES, count_lines, split_lines, why_nothing_measured
from vlmprof.analysis.runs import Run, join, joint_statistic
from vlmprof.analysis.series import scaling_figure
from vlmprof.analysis.summary import Summary, summarize
from vlmprof.errors import UserError
from vlmprof.manifest import environments
from vlmprof.render.labels import STATUS_WORDS
from vlmprof.render.report.findings import Finding, findings
from vlmprof.render.tables.row_warnings import has_message, row_warnings
from vlmprof.render.tables.scaling import run_tables, scaled_columns
from vlmprof.render.tables.sheet import Column, Kind, Sheet

_TITLES = {
    "cells": "Cells", "time": "Where the time goes", "levers": "What each lever costs", "scaling": "Scaling",
    "marginal": "Marginal cost per token", "crossovers": "Crossovers", "frontier": "Out-of-memory frontier",
    "conduct": "How it was measured",
}  # fmt: skip
_CHARTS = {"time": "stacks", "scaling": "fits"}


@dataclass(frozen=True)
class Section:
    """A section of the report: a heading, tables, and the chart above them, if any."""

    anchor: str
    title: str
    sheets: Sequence[Sheet]
    chart: str | None = None


@dataclass(frozen=True)
class Facts:
    """The provenance of a run: command, environment, specification."""

    name: str
    command: str
    environment: Sequence[tuple[str, str]]
    spec: str


@dataclass(frozen=True)
class Content:
    """The content of a report."""

    title: str
    summary: str
    findings: Sequence[Finding]
    """The summary in sentences; `anchor` is one of the sections, `warnings`, or empty."""
    notice: str
    """A sentence about lines omitted from charts and fits; empty if there are none."""
    no_figure: str
    """The reason why there is no scaling figure; empty if there is one."""
    charts: Charts
    sections: Sequence[Section]
    warnings: Sequence[str]
    facts: Sequence[Facts]


def gather(runs: Sequence[Run], reference: str | None = None) -> Content:
    """Collect the content of a report on these runs, with a reference in the background of the figure.

    Raises `UserError` if there is no run or no row, or if the reference is unknown.
    """
    if not runs:
        raise UserError("pass at least one run folder to report on")
    frame, samples = join(runs)
    estimates, lines = Estimates(frame, samples), split_lines(frame, most=MOST_LINES)
    charts = Charts(
        scaling=scaling_figure(estimates, lines, joint_statistic(runs), reference),
        stacks=stage_stacks(frame, lines),
        fits=fitted_panels(lines, scaled_columns(frame)),
    )
    sections, warnings = _sections(estimates, charts), _warnings(frame)
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return Content(
        title=names,
        summary=_summary(frame),
        findings=_findings(summarize(estimates, lines), sections, warnings),
        notice=_notice(len(lines), count_lines(frame)),
        no_figure=f"No figure: {why}." if (why := why_nothing_measured(frame)) else "",
        charts=charts,
        sections=sections,
        warnings=warnings,
        facts=[_facts(run) for run in runs],
    )


def _findings(summary: Summary, sections: Sequence[Section], warnings: Sequence[str]) -> list[Finding]:
    """Word the summary, with links only to what the report has."""
    linked = {section.anchor for section in sections} | ({"warnings"} if warnings else set())
    instead = {"warnings": "conduct" if "conduct" in linked else ""}
    return [
        one if one.anchor in linked else replace(one, anchor=instead.get(one.anchor, ""))
        for one in findings(summary)
    ]


def _sections(estimates: Estimates, charts: Charts) -> list[Section]:
    tables = run_tables(estimates, charts.scaling.lines, charts.fits)
    return [
        Section(anchor, title, tables[anchor], _CHARTS.get(anchor))
        for anchor, title in _TITLES.items()
        if tables[anchor]
    ]


def _summary(frame: pd.DataFrame) -> str:
    counts = Counter(frame["status"])
    ended = [f"{counts[status]:,} {words}" for status, words in STATUS_WORDS.items() if counts[status]]
    devices = [str(device) for device in frame["device"].dropna().unique()] if "device" in frame else []
    where = f" on {', '.join(devices)}" if devices else ""
    return f"{len(frame):,} cell{'s' * (len(frame) != 1)}{where}: {', '.join(ended)}."


def _notice(drawn: int, every: int) -> str:
    if drawn == every:
        return ""
    return (
        f"The summary, charts, fits and crossovers cover the first {drawn} of {every:,} lines, backbones in "
        "turn; the tables of cells and stages contain every row."
    )


def _warnings(frame: pd.DataFrame) -> list[str]:
    """Return the distinct warnings and messages, each with the cells it concerns."""
    cells: dict[str, list[str]] = {}
    for row in frame[has_message(frame)].to_dict("records"):
        message = row.get("message")
        messages = [f"{row['status']}: {message.strip()}"] if isinstance(message, str) else []
        for text in [*messages, *row_warnings(row)]:
            cells.setdefault(text, []).append(f"{row['backbone']} at {row['resolution']}")
    return [f"{text} ({_few(names)})" for text, names in list(cells.items())[:100]]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4:,} more"


def _facts(run: Run) -> Facts:
    first, *later = environments(run.manifest) or [{}]
    continued = [
        (f"continued · {name}", value) for environment in later for name, value in _flatten(environment)
    ]
    return Facts(
        name=run.name,
        command=str(run.manifest.get("command", "")),
        environment=[*_flatten(first), *continued],
        spec=json.dumps(run.manifest.get("spec", {}), indent=2, ensure_ascii=False),
    )


def _flatten(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}{' · ' if prefix else ''}{key}")
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, inner in enumerate(value):
            yield from _flatten(inner, f"{prefix} {i}")
    elif value is not None:
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def environment_sheet(facts: Facts) -> Sheet:
    """Return the environment of a run as a table."""
    return Sheet("environment", "Environment", "", [
        Column("fact", Kind.TEXT, [name for name, _ in facts.environment]),
        Column("value", Kind.TEXT, [value for _, value in facts.environment]),
    ])  # fmt: skip
