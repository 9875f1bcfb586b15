"""`vlmprof trace`: trace a cell operator by operator."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmprof.cli.options import SpecOption, spec_options
from vlmprof.cli.tables import show_sheet
from vlmprof.errors import UserError, writing


@spec_options
def trace(
    overrides: dict[str, Any],
    spec: SpecOption = "quick",
    cell: Annotated[str | None, typer.Option(help="Id of the only cell to trace.")] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("traces"),
    top: Annotated[int, typer.Option(help="Operators to print per stage.")] = 8,
) -> None:
    """Trace one iteration of each cell for TensorBoard (torch-tb-profiler) and Perfetto. Measures nothing.

    View the traces with `tensorboard --logdir FOLDER`, or open a .pt.trace.json file in Perfetto.
    """
    from vlmprof.activity import say
    from vlmprof.execution.kernel_table import longest, write_csv
    from vlmprof.execution.machine import describe_machine
    from vlmprof.execution.processes import call_in_process, status_board
    from vlmprof.plan import make_plan
    from vlmprof.render.tables.operators import operator_sheet
    from vlmprof.spec import load_spec
    from vlmprof.store import check_can_hold_a_run

    checked = load_spec(spec, overrides)
    cells = [c for c in make_plan(checked) if c.skip_reason is None and cell in (None, c.cell_id)]
    if not cells:
        raise UserError(f"no cell {cell!r} in this specification; `vlmprof plan --ids` lists them")
    check_can_hold_a_run(out, "the folder")
    say("loading torch and looking at the device")
    settings = replace(checked.settings, device=describe_machine(checked.settings.device).device)
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for planned in cells:
        say(f"tracing {planned.label}")
        log = out / f"{planned.cell_id}.log"
        ended = call_in_process(
            "vlmprof.execution.trace:trace_cell", (planned, settings, out, status_board()), log=log
        )
        if ended.value is None:
            failed = True
            why = ended.error or ended.user_error or f"its process exited with code {ended.exit_code}"
            print(f"vlmprof: {planned.label}: {why}; see {log}", file=sys.stderr)
            continue
        log.unlink(missing_ok=True)
        operators = out / f"{planned.cell_id}.operators.csv"
        with writing(str(operators)):
            write_csv(ended.value, operators)
        stages = dict.fromkeys(operator.stage for operator in ended.value)
        shown = [operator for stage in stages for operator in longest(ended.value, stage, top)]
        show_sheet(operator_sheet(planned.label, shown))
    print(f"tensorboard --logdir {out}")
    if failed:
        raise typer.Exit(1)
