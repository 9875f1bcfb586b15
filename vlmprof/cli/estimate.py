"""`vlmprof estimate`: what a sweep would cost, with nothing run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlmprof.cli.options import spec_options
from vlmprof.cli.tables import SaveOption


@spec_options
def estimate(
    overrides: dict[str, Any],
    spec: Annotated[str, typer.Argument(help="A TOML file or a shipped name.")] = "kuo2026-fig4",
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            help="h200, h100, a100-80, l40s, rtx4090, …; here for this CPU. Repeatable; h200 by default."
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="A smaller budget, such as 24GiB.")] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Whose scans: triton (ours), torch (ours, for a CPU) or published (VMamba's own code). "
            "By default what runs there, or what ran in --against.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A run folder, or kuo2026: say how far off.")] = None,
    rates: Annotated[
        bool, typer.Option(help="Show the FLOP/s and GB/s that the measurements of --against reached.")
    ] = False,
    costs: Annotated[
        bool, typer.Option(help="Show what is counted per stage: FLOPs, bytes, weights, activations, cache.")
    ] = False,
    refit: Annotated[bool, typer.Option(help="Fit the constants to --against first.")] = False,
    save_tables: SaveOption = None,
) -> None:
    """Predict latencies, peak memory and the first resolution that does not fit. Runs nothing.

    Costs are counted on tensors without data; a data sheet and a few constants turn them into time.
    """
    from vlmprof.activity import say

    say("loading torch and transformers")
    from vlmprof.execution.counting import get_ready_to_count
    from vlmprof.plan import make_plan
    from vlmprof.spec import load_spec

    if memory is not None:
        overrides = {**overrides, "memory_limit": memory}
    checked = load_spec(spec, overrides)
    get_ready_to_count(make_plan(checked))
    from vlmprof.cli import predictions

    predictions.show(checked, gpu or ["h200"], kernels, against, rates, refit, costs, save_tables)
