"""`vlmprof recommend`: choose a configuration: encoder, resolution and every other axis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmprof.activity import say
from vlmprof.cli.estimate import load_to_count
from vlmprof.cli.json_output import add_rows, json_option, tell, tell_files
from vlmprof.cli.options import FormatsOption, WidthOption
from vlmprof.cli.runs import read_run
from vlmprof.cli.tables import SaveOption, show_sheet
from vlmprof.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from vlmprof.analysis.advice import Limits


@json_option("recommend", tables="recommended; where known, levers and correlation")
def recommend(
    run: Annotated[
        Path,
        typer.Argument(help="A run folder, the name of a run in runs/, or, with --gpu, a specification."),
    ],
    max_memory: Annotated[str | None, typer.Option(help="Memory of the device, such as 24GiB.")] = None,
    max_ttft: Annotated[str | None, typer.Option(help="Longest time to first token, such as 200ms.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Most energy per image, such as 20J.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Highest cost per thousand images; needs --price-per-hour.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="CSV file with scores by backbone or other axes, or kuo2026.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="Score to maximize (default: the overall one).")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Price of the device, for the cost per thousand images.")
    ] = None,
    tolerance: Annotated[str, typer.Option(help="Costs that differ by less count as equal.")] = "5%",
    gpu: Annotated[
        str | None, typer.Option(help="Choose among estimates for a GPU: h200, …; here for this CPU.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the figure (default: the run folder, or the current one with --gpu)."),
    ] = None,
    format: FormatsOption = None,
    width: WidthOption = "two-column",
    save_tables: SaveOption = None,
) -> None:
    """Choose among the cells of a run within limits; print and draw the Pareto front.

    The table and the figure say which lever each step along the front pulls: the axes that change. A second
    table has the price of every lever. Exits with code 1 if no cell is within the limits.
    """
    from vlmprof.render.figures.files import check_formats, save_figure
    from vlmprof.render.figures.layout import page_of

    page_of(width)
    check_formats(format or ())
    limits = _limits(max_memory, max_ttft, max_energy, max_cost, price_per_hour)
    if gpu and max_energy:
        raise UserError("--max-energy needs a measured run: estimates have no energy; remove it or --gpu")
    from vlmprof.analysis.advice import advise
    from vlmprof.analysis.scores import load_scores, pick_score, score_columns
    from vlmprof.units import parse_percent

    share = parse_percent(tolerance, "--tolerance")
    qualities = load_scores(scores) if scores else None
    if score is not None:
        if qualities is None:
            raise UserError("--score needs --scores, the table that has it")
        pick_score(score_columns(qualities), score)
    frame, folder, estimated_for = _estimated(run, gpu) if gpu else _measured(run)
    from vlmprof.render.figures.pareto import pareto_figure
    from vlmprof.render.tables.decisions import advice_sheet, correlation_sheet, lever_sheet

    advice = advise(
        frame, limits, scores=qualities, score=score, price_per_hour=price_per_hour, tolerance=share,
        estimated_for=estimated_for,
    )  # fmt: skip
    for remark in advice.remarks:
        tell(remark)
    if advice.chosen.empty:
        tell(advice.nearest_miss)
        add_rows("recommended", ())
    else:
        show_sheet(advice_sheet(advice), save_tables)
    for sheet in (lever_sheet(frame, estimated_for), correlation_sheet(advice)):
        if sheet is not None:
            show_sheet(sheet, save_tables)
    if gpu is not None:
        tell_levers(frame)
    say("drawing the Pareto front")
    figure = pareto_figure(advice, limits, width)
    name = "recommend" if gpu is None else f"recommend-{gpu}"
    tell_files(save_figure(figure, out or folder, name, format or ["png", "pdf"]))
    if advice.chosen.empty:
        raise typer.Exit(1)


def tell_levers(frame: pd.DataFrame) -> None:
    """Print the price of each lever of estimated rows in a sentence."""
    from vlmprof.analysis.levers import lever_prices
    from vlmprof.render.report.levers import lever_sentence

    for price in lever_prices(frame):
        if price.change.axis != "resolution":
            tell(lever_sentence(price, estimated=True))


def _limits(
    memory: str | None, ttft: str | None, energy: str | None, cost: float | None, price_per_hour: float | None
) -> Limits:
    from vlmprof.analysis.advice import Limits
    from vlmprof.units import parse_bytes, parse_joules, parse_seconds

    for option, value in (("--price-per-hour", price_per_hour), ("--max-cost", cost)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{option} {value:g} is not a price")
    if cost is not None and price_per_hour is None:
        raise UserError("--max-cost needs --price-per-hour, the price of the device")
    return Limits(
        memory_bytes=parse_bytes(memory, "--max-memory") if memory else None,
        ttft_s=parse_seconds(ttft, "--max-ttft") if ttft else None,
        energy_per_image_j=parse_joules(energy, "--max-energy") if energy else None,
        cost_per_thousand_images=cost,
    )


def _measured(run: Path) -> tuple[pd.DataFrame, Path, None]:
    read = read_run(run)
    return read.frame, read.folder, None


def _estimated(spec: Path, gpu: str) -> tuple[pd.DataFrame, Path, str]:
    checked = load_to_count(str(spec))
    from vlmprof.cli import predictions

    frame, device = predictions.frame_of(checked, gpu)
    return frame, Path(), device
