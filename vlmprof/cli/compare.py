"""`vlmprof compare`: compare two runs, or a run with published points, cell by cell."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from vlmprof.cli.json_output import add_rows, json_option, tell
from vlmprof.cli.tables import SaveOption, show_sheet
from vlmprof.errors import UserError


@json_option("compare", tables="comparison and, if settings differ, differences")
def compare(
    a: Annotated[
        Path,
        typer.Argument(
            help="The baseline: a run folder or a name in runs/. With --reference, the run to judge."
        ),
    ],
    b: Annotated[Path | None, typer.Argument(help="The run to judge: a folder or a name.")] = None,
    reference: Annotated[str | None, typer.Option(help="Published points as the baseline: kuo2026.")] = None,
    fail_slower: Annotated[
        str | None,
        typer.Option(
            help="Exit with code 1 if a cell is slower by more than this (such as 5%), no longer runs, is "
            "missing, or has too few samples for a verdict."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="With --fail-slower, accept cells that B lacks or skipped, and cells with too few samples.",
        ),
    ] = False,
    margin: Annotated[str, typer.Option(help="Differences below this count as the same.")] = "2%",
    ignore: Annotated[list[str] | None, typer.Option(help="Axis that may differ. Repeatable.")] = None,
    figure: Annotated[
        list[str] | None, typer.Option(help="Column to show and guard, such as gpu_vision_s. Repeatable.")
    ] = None,
    save_tables: SaveOption = None,
) -> None:
    """Compare two runs: ratios with intervals per cell and stage, verdicts, and a guard for commits.

    Published points from another device are compared by ratios only, without verdicts.
    """
    from vlmprof.run_list import find_run

    a, b = find_run(a), None if b is None else find_run(b)
    from vlmprof.activity import say
    from vlmprof.analysis import compare as comparing
    from vlmprof.analysis.reference import another_device_in, load_reference
    from vlmprof.analysis.runs import Run, load
    from vlmprof.manifest import differences
    from vlmprof.render.tables.comparisons import (
        comparison_sheet,
        comparison_words,
        difference_words,
        failure_words,
    )
    from vlmprof.units import parse_percent

    if (b is None) == (reference is None):
        raise UserError("compare takes two runs, or one run and --reference kuo2026")
    allowed = None if fail_slower is None else parse_percent(fail_slower, "--fail-slower")
    say("reading the runs")
    judged = load(b or a)
    known = load(a) if reference is None else Run(reference, load_reference(reference), {}, {})
    known_samples = known.samples if reference is None else None  # published points are taken to be exact
    say("comparing cells")
    found = comparing.compare(
        known.frame, judged.frame, known_samples, judged.samples,
        margin=parse_percent(margin, "--margin"), ignore=ignore or (),
    )  # fmt: skip
    found = comparing.select(found, figure)
    if reference is not None and (elsewhere := another_device_in(reference, judged.frame)):
        found = comparing.without_verdict(found, elsewhere)
    if reference is not None:  # nobody has to measure all that was published
        found = replace(found, missing=())
    failures: list[str] = []
    if allowed is not None and not found.no_verdict:
        guarded = comparing.guard(found, allowed, figure or ("end_to_end_s",), allow_missing)
        failures = failure_words(guarded, found, str(fail_slower))
    for sentence in failures:
        tell(sentence)
    show_sheet(comparison_sheet(found), save_tables)
    if differing := differences(known.manifest, judged.manifest) if reference is None else []:
        tell(difference_words(differing))
        add_rows("differences", map(asdict, differing))
    for sentence in comparison_words(found):
        tell(sentence)
    if allowed is not None and found.no_verdict:
        tell("--fail-slower has no effect: the two ran on different kinds of device.")
    if failures:
        raise typer.Exit(1)
