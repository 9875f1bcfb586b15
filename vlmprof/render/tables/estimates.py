"""Predictions as tables for the terminal: what was estimated, and how far off it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from vlmprof.analysis.frames import show_resolution
from vlmprof.plan import Cell, varied_axes
from vlmprof.render.labels import backbone_label
from vlmprof.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from vlmprof.cost.accuracy import Achieved, Miss, Prediction
    from vlmprof.cost.calibration import GroupError
    from vlmprof.cost.count import Counted


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """One row per cell: latencies of each stage, end to end, peak memory, and whether it fits."""
    stages = list(predictions[0].estimate.stages) if predictions else []
    varied = _varied([p.cell for p in predictions])
    table = _cell_table(varied)
    for title in ("visual tokens", "vision TFLOP", *stages, "end-to-end", "peak"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for p in predictions:
        guess = p.estimate
        launched = [stage for stage, e in guess.stages.items() if e.launch_bound]
        words = f"launch-bound: {', '.join(launched)}" if launched else ""
        if not guess.fits:
            words = f"out of memory in {guess.oom_stage}"
        table.add_row(
            *_names(p.cell, varied),
            f"{p.cost.visual_tokens:,}",
            f"{p.cost.stages['vision'].flops / 1e12:.3g}" if "vision" in p.cost.stages else "",
            *(show_seconds(e.latency_s) for e in guess.stages.values()),
            show_seconds(guess.end_to_end_s),
            show_bytes(guess.peak_allocated_bytes),
            words,
            style=None if guess.fits else "red",
        )
    return table


def cost_table(counted: Sequence[Counted]) -> Table:
    """One row per cell and stage: what it computes, moves and keeps, by counting."""
    varied = _varied([cell for cell, _ in counted])
    table = _cell_table(varied, "stage")
    for title in ("GFLOP", "moved", "least moved", "weights", "activations", "key–value cache", "launches"):
        table.add_column(title, justify="right", no_wrap=True)
    for cell, cost in counted:
        for name, stage in cost.stages.items():
            table.add_row(
                *_names(cell, varied),
                name,
                f"{(stage.flops - stage.skipped_flops) / 1e9:,.4g}",
                show_bytes(stage.moved_bytes + stage.slab_bytes),
                show_bytes(stage.least_bytes),
                show_bytes(stage.weight_bytes),
                show_bytes(stage.peak_activation_bytes),
                show_bytes(stage.kv_cache_bytes) if stage.kv_cache_bytes else "",
                f"{stage.kernels:,}",
            )
    return table


def miss_table(found: Sequence[Miss]) -> Table:
    """How far predictions were off, by backbone and figure."""
    table = _table("backbone", "figure")
    for title in ("cells", "typically off by", "predicted / measured", "worst"):
        table.add_column(title, justify="right", no_wrap=True)
    for miss in found:
        table.add_row(
            escape(backbone_label(miss.backbone)),
            miss.figure,
            str(miss.points),
            f"{100 * (miss.median_factor - 1):.0f} %",
            f"{miss.median_ratio:.2f}",
            f"{miss.worst_ratio:.2f} at {show_resolution(miss.worst_resolution)}",
        )
    return table


def achieved_table(reached: Sequence[Achieved]) -> Table:
    """What each measured stage made of its device."""
    varied = _varied([one.cell for one in reached])
    table = _cell_table(varied, "stage")
    for title in ("measured", "TFLOP/s", "of dense rate", "GB/s", "of bandwidth"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in reached:
        table.add_row(
            *_names(one.cell, varied),
            one.stage,
            show_seconds(one.latency_s),
            f"{one.flops_per_s / 1e12:.3g}",
            f"{100 * one.flops_share:.2g} %",
            f"{one.bytes_per_s / 1e9:.3g}",
            f"{100 * one.bytes_share:.2g} %",
        )
    return table


def group_table(errors: Sequence[GroupError]) -> Table:
    """The fit's error on each group, seen and not seen."""
    table = _table("group")
    for title in ("stages", "typically off by", "when left out of the fit"):
        table.add_column(title, justify="right", no_wrap=True)
    for error in errors:
        fitted, left_out = (f"{100 * (factor - 1):.0f} %" for factor in (error.fitted, error.left_out))
        table.add_row(escape(error.group), str(error.points), fitted, left_out)
    return table


def _names(cell: Cell, varied: Sequence[str]) -> list[str]:
    shown = [backbone_label(cell.axes.backbone), show_resolution(cell.axes.resolution)]
    return [escape(word) for word in (*shown, *(str(cell.axes.named[axis]) for axis in varied))]


def _varied(cells: Sequence[Cell]) -> list[str]:
    return [axis for axis in (varied_axes(cells) if cells else []) if axis not in ("backbone", "resolution")]


def _cell_table(varied: Sequence[str], *titles: str) -> Table:
    return _table("backbone", "resolution", *(axis.replace("_", " ") for axis in varied), *titles)


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table
