"""The output of the main commands."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmprof.activity import say
from vlmprof.cli.json_output import add_message, json_wanted, tell, tell_files
from vlmprof.cli.tables import show_sheet
from vlmprof.plan import Cell
from vlmprof.records import FAILED
from vlmprof.render.tables import plans
from vlmprof.render.tables.terminal import console
from vlmprof.spec import SweepSpec
from vlmprof.units import show_duration

if TYPE_CHECKING:
    import pandas as pd

    from vlmprof.render.report.findings import Finding


MOST_LOGS = 10
"""Largest number of failed cells whose logs are named; the others are in the same folder."""


def plan(
    spec: SweepSpec,
    cells: Sequence[Cell],
    ids: bool,
    every_cell: bool,
    save_to: Path | None,
    timed: bool = False,
) -> None:
    """Print the cells of a plan, with constant axes once above the table. On a terminal, a long plan is
    summarized unless `every_cell` or `ids` is set. `timed` adds how long it takes on this machine."""
    screen = console()
    tell(plans.head_line(spec, cells))
    short = screen.is_terminal and len(cells) > plans.LONG and not (every_cell or ids or json_wanted())
    if short:
        for sheet in plans.summary_sheets(cells):
            screen.print()
            show_sheet(sheet, save_to)
    else:
        show_sheet(plans.plan_sheet(cells, ids), save_to, rows=map(plans.plan_row, cells))
    to_run = sum(cell.skip_reason is None for cell in cells)
    tell(f"{to_run} cells to run, {len(cells) - to_run} skipped")
    if to_run and (longest_s := spec.settings.longest_sampling_s) is not None:
        longest = show_duration(to_run * longest_s)
        tell(f"sampling takes at most {longest}, unless two iterations of a cell take longer")
    if timed and to_run:
        tell(_duration(spec, cells))
    if short:
        screen.print("--all prints every cell")


def _duration(spec: SweepSpec, cells: Sequence[Cell]) -> str:
    from vlmprof.execution.duration import expected_seconds, total_seconds
    from vlmprof.execution.machine import describe_machine

    say("measuring the ceilings of the device")
    machine = describe_machine(spec.settings.device, spec.axes.dtype)
    say("counting costs")
    seconds = total_seconds(cells, expected_seconds(cells, spec.settings, machine))
    if seconds is None:
        return "the duration is not known before the first cell is measured"
    return f"about {show_duration(seconds)} on {machine.device_name}, estimated from counted costs"


def run(folder: Path) -> int:
    """Print a finished run's table and draw its figure; return the number of failed cells.

    If no cell was measured, the reason is printed instead of the figure.
    """
    say("reading the run")
    from vlmprof.analysis.estimates import Estimates
    from vlmprof.analysis.frames import why_nothing_measured
    from vlmprof.analysis.runs import load
    from vlmprof.manifest import environments
    from vlmprof.render.figures.six_panel import save_six_panel
    from vlmprof.render.report.findings import run_findings
    from vlmprof.render.tables.cells import run_sheet
    from vlmprof.render.tables.row_warnings import warning_lines

    say("drawing the figure")
    finished = load(folder)
    known = finished.frame.dropna(axis="columns", how="all")
    rows = ({str(name): value for name, value in row.items()} for row in known.to_dict("records"))
    show_sheet(run_sheet(Estimates(finished.frame, finished.samples)), rows=rows)
    for line in warning_lines(finished.frame):
        tell(line)
    for line in {line: None for one in environments(finished.manifest) for line in one.get("warnings", ())}:
        tell(line)
    summary(run_findings(finished))
    if (why := why_nothing_measured(finished.frame)) is not None:
        tell(f"no figure: {why}")
    else:
        figure = save_six_panel(finished.frame, folder, finished.samples, statistic=finished.statistic)
        tell_files(figure)
    return _say_failures(finished.rows, folder)


def summary(findings: Sequence[Finding], notice: str = "") -> None:
    """Print the summary of one or more runs in sentences, and the `notice` about what it covers."""
    screen = console()
    for sentence in [finding.text for finding in findings] + ([notice] if notice else []):
        text = f"- {sentence}"
        print(_folded(text, screen.width) if screen.is_terminal else text)
        add_message(sentence)


def _folded(text: str, width: int) -> str:
    """Fold the text of a list's item to `width` columns, without breaks between a number and its unit."""
    glued = re.sub(r"(?<=[\d)]) (?=(%|[nµm]?s|[KMGT]iB)\b|%)", "\0", text)
    return textwrap.fill(glued, width, subsequent_indent="  ").replace("\0", " ")


def _say_failures(frame: pd.DataFrame, folder: Path) -> int:
    from vlmprof.store import LOGS

    counts = {status: int((frame["status"] == status).sum()) for status in FAILED}
    failed = sum(counts.values())
    if failed:
        for row in frame[frame["status"].isin(FAILED)].head(MOST_LOGS).to_dict("records"):
            log = folder / LOGS / f"{row['cell_id']}.txt"
            print(f"{row['backbone']} @ {row['resolution']} {row['status']}: {log}", file=sys.stderr)
        ended = " and ".join(f"{count} in {status}" for status, count in counts.items() if count)
        sys.stdout.flush()
        print(
            f"vlmprof: {failed} of {len(frame)} cells failed ({ended}); their logs are in {folder / LOGS}",
            file=sys.stderr,
        )
    return failed
