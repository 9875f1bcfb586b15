"""`vlmprof runs`: list the runs in a folder; and reading one of them, as several commands do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmprof.activity import say
from vlmprof.cli.json_output import add_rows, json_option, tell
from vlmprof.cli.tables import SaveOption, show_sheet

if TYPE_CHECKING:
    from vlmprof.analysis.runs import Run


def read_run(run: Path) -> Run:
    """Load a run by its folder or its name. Raises `UserError` if there is none or it has no rows."""
    from vlmprof.run_list import find_run

    folder = find_run(run)  # before the slow imports
    say(f"reading {folder}")
    from vlmprof.analysis.runs import load

    return load(folder)


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
        add_rows("runs", ())
