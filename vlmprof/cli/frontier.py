"""`vlmprof frontier`: find the largest image, or batch, that fits each memory limit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlmprof.cli.json_output import json_option, tell_files
from vlmprof.cli.options import spec_options, typed
from vlmprof.cli.tables import SaveOption, show_sheet


@json_option("frontier", tables="frontier")
@spec_options
def frontier(
    overrides: dict[str, Any],
    memory: Annotated[list[str], typer.Option(help="Memory limit, such as 24GiB. Repeatable.")],
    spec: Annotated[
        str | None, typer.Argument(help="A TOML file or a shipped specification to start from.")
    ] = None,
    axis: Annotated[
        str, typer.Option(help="Axis to search: resolution, batch_size or frames.")
    ] = "resolution",
    largest: Annotated[
        int | None,
        typer.Option(help="Largest side in pixels (default: 8192), batch size or frames (256) to try."),
    ] = None,
    step: Annotated[int, typer.Option(help="Step between image sides in pixels.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/frontier-…).")] = None,
    save_tables: SaveOption = None,
) -> None:
    """Find by bisection the largest image, batch or number of frames that fits in memory.

    Writes rows, a table and a plot. Each probe runs in a new process, by default with one warm-up and one
    measured iteration. To resume a search, run the same command again.
    """
    from rich.console import Console

    from vlmprof.cli import candidates
    from vlmprof.execution.frontier import find_frontiers
    from vlmprof.execution.probe_progress import ProbeProgress
    from vlmprof.render.figures.frontier import save_frontier
    from vlmprof.render.tables.frontier import search_sheet
    from vlmprof.units import parse_bytes

    searched = candidates.spec(spec, overrides, axis, largest, step)
    folder = out or Path("runs") / f"frontier-{searched.name}-{searched.digest()}"
    found = find_frontiers(
        searched, axis, [parse_bytes(word, "--memory") for word in memory], folder, typed(),
        ProbeProgress(Console(stderr=True)),
    )  # fmt: skip
    show_sheet(search_sheet(found), save_tables)
    tell_files(save_frontier(found, folder, ["png", "pdf"]))
