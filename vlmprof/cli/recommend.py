"""`vlmprof recommend`: choose a backbone and a resolution."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from vlmprof.cli.json_output import json_option, tell, tell_files
from vlmprof.cli.tables import SaveOption, show_sheet
from vlmprof.errors import UserError


@json_option("recommend", tables="recommended and, with scores, correlation")
def recommend(
    run: Annotated[Path, typer.Argument(help="A run folder, or the name of a run in runs/.")],
    max_memory: Annotated[str | None, typer.Option(help="Memory of the device, such as 24GiB.")] = None,
    max_ttft: Annotated[str | None, typer.Option(help="Longest time to first token, such as 200ms.")] = None,
    scores: Annotated[
        str | None, typer.Option(help="CSV file with backbone, resolution and scores, or kuo2026.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="Score to maximize (default: the overall one).")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Price of the device, for the cost per thousand images.")
    ] = None,
    tolerance: Annotated[str, typer.Option(help="Costs that differ by less count as equal.")] = "5%",
    out: Annotated[Path | None, typer.Option(help="Folder for the figure (default: the run folder).")] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="png, pdf or svg (default: png and pdf). Repeatable.")
    ] = None,
    width: Annotated[str, typer.Option(help="Width: one-column or two-column.")] = "two-column",
    save_tables: SaveOption = None,
) -> None:
    """Choose among the measured cells within limits; print and draw the Pareto front.

    Exits with code 1 if no cell is within the limits.
    """
    from vlmprof.run_list import find_run

    run = find_run(run)
    from vlmprof.activity import say
    from vlmprof.analysis.advice import Limits, advise, load_scores
    from vlmprof.analysis.runs import load
    from vlmprof.render.figures.files import save_figure
    from vlmprof.render.figures.pareto import pareto_figure
    from vlmprof.render.tables.decisions import advice_sheet, correlation_sheet
    from vlmprof.units import parse_bytes, parse_percent, parse_seconds

    if price_per_hour is not None and not 0 < price_per_hour < math.inf:
        raise UserError(f"--price-per-hour {price_per_hour:g} is not a price")
    limits = Limits(
        memory_bytes=parse_bytes(max_memory) if max_memory else None,
        ttft_s=parse_seconds(max_ttft) if max_ttft else None,
    )
    say(f"reading {run}")
    advice = advise(
        load(run).frame, limits, scores=load_scores(scores) if scores else None, score=score,
        price_per_hour=price_per_hour, tolerance=parse_percent(tolerance, "--tolerance"),
    )  # fmt: skip
    if advice.chosen.empty:
        tell(advice.nearest_miss)
    else:
        show_sheet(advice_sheet(advice), save_tables)
    if correlations := correlation_sheet(advice):
        show_sheet(correlations, save_tables)
    say("drawing the Pareto front")
    figure = pareto_figure(advice, limits, width)
    tell_files(save_figure(figure, out or run, "recommend", format or ["png", "pdf"]))
    if advice.chosen.empty:
        raise typer.Exit(1)
