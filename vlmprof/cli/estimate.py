"""`vlmprof estimate`: predict the cost of a sweep without running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmprof.cli.json_output import json_option
from vlmprof.cli.options import SpecOption, spec_options
from vlmprof.cli.tables import SaveOption

if TYPE_CHECKING:
    from vlmprof.spec import SweepSpec


def load_to_count(source: str, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Load a specification whose cells will be counted, and what counting them needs."""
    from vlmprof.activity import say

    say("loading torch and transformers")
    from vlmprof.execution.counting import get_ready_to_count
    from vlmprof.plan import make_plan
    from vlmprof.spec import load_spec

    checked = load_spec(source, overrides)
    get_ready_to_count(make_plan(checked))
    return checked


@json_option("estimate", tables="estimates-GPU; as asked, costs-KERNELS, errors-GPU, rates-GPU")
@spec_options
def estimate(
    overrides: dict[str, Any],
    spec: SpecOption = "kuo2026-fig4",
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="h200 (default), h100, a100-80, l40s, rtx4090, …; here for this CPU. Repeatable."),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Smaller memory limit, such as 24GiB.")] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Scan implementation: triton, torch (for a CPU) or published (VMamba's code); "
            "by default, that of the device or of --against.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Run folder, or kuo2026, to compare the predictions with.")
    ] = None,
    rates: Annotated[
        bool, typer.Option(help="Show the FLOP/s and GB/s reached by the measurements of --against.")
    ] = False,
    costs: Annotated[
        bool, typer.Option(help="Show the counts per stage: FLOPs, bytes, weights, activations, cache.")
    ] = False,
    refit: Annotated[bool, typer.Option(help="First fit the constants to --against.")] = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Folder for figures of the estimates: the six panels, the Pareto front, and TTFT against "
            "resolution (estimates-GPU, front-GPU and ttft-GPU, .png and .pdf)."
        ),
    ] = None,
    save_tables: SaveOption = None,
) -> None:
    """Predict latencies, peak memory and the first resolution that does not fit. Runs nothing.

    Costs are counted on meta tensors, and converted to time with a data sheet and a few constants.
    """
    checked = load_to_count(spec, overrides | ({} if memory is None else {"memory_limit": memory}))
    from vlmprof.cli import predictions

    predictions.show(checked, gpu or ["h200"], kernels, against, rates, refit, costs, save_tables, figure)
