"""`vlmprof runs`: list the runs in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmprof.cli.json_output import json_option, tell
from vlmprof.cli.tables import SaveOption, show_sheet


@json_option("runs", tables="runs")
def runs(
    folder: Annotated[Path, typer.Argument(help="A folder of run folders.")] = Path("runs"),
    save_tables: SaveOption = None,
) -> None:
    """List the runs in a folder with their specification, machine, date and cells by status.

    Other commands take the name of a run in runs/ wherever they take a run folder.
    """
    from vlmprof.render.tables.runs import runs_sheet
    from vlmprof.run_list import list_runs

    if found := list_runs(folder):
        show_sheet(runs_sheet(found), save_tables)
    else:
        tell(f"no runs in {folder}")
