"""`vlmprof kernels bench`: time single operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmprof.cli import kernels_rows
from vlmprof.cli.json_output import tell_files

if TYPE_CHECKING:
    from vlmprof.execution.kernel_runs import BenchJob, KernelRun, Outcome


def bench_operations(
    run: KernelRun, operations: Sequence[str], asked: BenchJob, peers: bool, out: Path | None
) -> int:
    """Time each operation as `asked` on each backend, print a line for each, and write the rows to `out`.

    Returns the number of our own rows that failed. With `peers`, other implementations of SS2D are timed too.
    """
    if out is not None:
        kernels_rows.read(out, "bench", run.environment["device_name"])  # refuses rows of another device
    with_baselines = "ss2d" in operations and (peers or asked.public is not None)
    baselines = _baselines(run, asked.public) if with_baselines else []
    ceilings = {dtype: found for dtype in asked.dtypes if (found := _ceilings(run, dtype)) is not None}
    file = kernels_rows.RowFile("bench", out)

    def show(outcome: Outcome) -> None:
        row = kernels_rows.bench_row(outcome, run.environment)
        if outcome.status == "ok":
            kernels_rows.print_row(row)
        else:
            label = outcome.labels
            what = f"{label.get('op', ''):20} {label.get('shape', ''):24} {label.get('backend', ''):10}"
            kernels_rows.print_folded(what, kernels_rows.reason(outcome))
        file.add(row)

    for op in operations:
        own = tuple(baselines) if op == "ss2d" else ()
        job = replace(asked, op=op, baselines=own, ceilings=ceilings)
        run.attempt_all("bench_operation", (job,), {"op": op}, show)
    timed = [row for row in file.rows if row["status"] == "ok"]
    kernels_rows.print_ratios(timed)
    file.tell()
    # a roofline needs FLOPs and ceilings, which copies do not have
    computing = [row for row in timed if row["counted_flops"] and row["matmul_ceiling_flops_per_s"]]
    if out is not None and computing:
        from vlmprof.render.figures.roofline import draw_roofline

        draw_roofline(computing, out / "roofline.png")
        tell_files([out / "roofline.png"])
    return sum(row["status"] != "ok" and row.get("backend") not in baselines for row in file.rows)


def _ceilings(run: KernelRun, dtype: str) -> Any:
    try:
        return run.call("ceilings", run.device, dtype)
    except RuntimeError as error:
        print(f"ceilings in {dtype} cannot be measured, so shares of them are omitted: {error}", flush=True)
        return None


def _baselines(run: KernelRun, public: Path | None) -> list[str]:
    """Return the names of the available baselines, and print a line for each unavailable one."""
    try:
        found, missing = run.call("known_baselines", public)
    except RuntimeError as error:
        print(f"no baselines: {error}", flush=True)
        return []
    for name, why in missing.items():
        print(f"{name} is not timed: {why}", flush=True)
    return list(found)
