"""Tables of predictions: counts, estimates and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmprof.plan import Cell, varied_axes
from vlmprof.render.labels import backbone_label, oom_words
from vlmprof.render.tables.plans import token_columns
from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.units import show_bytes, show_resolution

if TYPE_CHECKING:
    from vlmprof.cost.accuracy import Achieved, Miss, Prediction
    from vlmprof.cost.calibration import GroupError
    from vlmprof.cost.count import Counted


def prediction_sheet(predictions: Sequence[Prediction], device: str) -> Sheet:
    """Return one row per cell: latencies of each stage and end to end, peak memory, and whether it fits."""
    estimates = [p.estimate for p in predictions]
    stages = list(estimates[0].stages) if estimates else []
    vision = [p.cost.stages.get("vision") for p in predictions]
    tera_flops = [None if cost is None else cost.flops / 1e12 for cost in vision]
    return Sheet(f"estimates-{device}", f"Estimates for {device}", "", [
        *_cell_columns([p.cell for p in predictions]),
        *token_columns([p.cell for p in predictions], 2),
        Column("vision TFLOP", Kind.NUMBER, tera_flops, 3),
        *(Column(name, Kind.SECONDS, [e.stages[name].latency_s for e in estimates], 2) for name in stages),
        Column("end-to-end", Kind.SECONDS, [e.end_to_end_s for e in estimates], 1),
        Column("peak", Kind.BYTES, [e.peak_allocated_bytes for e in estimates], 1),
        Column("note", Kind.TEXT, [_comment(p) for p in predictions]),
    ])  # fmt: skip


def memory_lines(predictions: Sequence[Prediction], first_oom: Sequence[Prediction | None]) -> list[str]:
    """Return a sentence on the memory, then one for each line; `first_oom` is None for a line that fits
    completely."""
    limits = sorted({p.estimate.memory_bytes for p in predictions})
    lines: dict[object, list[Prediction]] = {}
    for prediction in predictions:
        lines.setdefault(prediction.cell.line, []).append(prediction)
    varied = [axis for axis in varied_axes([own[0].cell for own in lines.values()]) if axis != "backbone"]
    words = [f"memory for tensors: {', '.join(map(show_bytes, limits))}"]
    for own, first in zip(lines.values(), first_oom, strict=True):
        axes = own[0].cell.axes
        name = " ".join([backbone_label(axes.backbone), *(str(axes.named[axis]) for axis in varied)])
        if first is None:
            largest = show_resolution(own[-1].cell.axes.resolution)
            words.append(f"{name}: fits up to {largest}, the largest in the specification")
        else:
            size, need = show_resolution(first.cell.axes.resolution), first.estimate.peak_allocated_bytes
            where = f"{size} in {first.estimate.oom_stage} ({show_bytes(need)})"
            words.append(f"{name}: first out of memory at {where}")
    return words


def assumption_lines(counted: Sequence[Counted]) -> list[str]:
    """Return the distinct assumptions made in counting these cells, each with the first cell it concerns."""
    first: dict[str, Cell] = {}
    for cell, cost in counted:
        for words in cost.assumptions:
            first.setdefault(words, cell)
    return [f"{cell.label}: {words}" for words, cell in first.items()]


def cost_sheet(counted: Sequence[Counted], kernels: str) -> Sheet:
    """Return one row per cell and stage with its counted FLOPs, bytes and memory."""
    rows = [(cell, name, stage) for cell, cost in counted for name, stage in cost.stages.items()]
    stages = [stage for *_, stage in rows]
    return Sheet(f"costs-{kernels}", f"Counted costs, {kernels} scan kernels", "", [
        *_cell_columns([cell for cell, *_ in rows]),
        Column("stage", Kind.TEXT, [name for _, name, _ in rows]),
        Column("GFLOP", Kind.NUMBER, [(s.flops - s.skipped_flops) / 1e9 for s in stages], 1),
        Column("moved", Kind.BYTES, [s.moved_bytes + s.slab_bytes for s in stages], 1),
        Column("least moved", Kind.BYTES, [s.least_bytes for s in stages], 4),
        Column("weights", Kind.BYTES, [s.weight_bytes for s in stages], 1),
        Column("activations", Kind.BYTES, [s.peak_activation_bytes for s in stages], 2),
        Column("key–value cache", Kind.BYTES, [s.kv_cache_bytes or None for s in stages], 3),
        Column("launches", Kind.COUNT, [s.kernels for s in stages], 3),
    ])  # fmt: skip


def miss_sheet(found: Sequence[Miss]) -> Sheet:
    """Return the errors of predictions by backbone and figure."""
    worst = [f"{m.worst_ratio:.2f} at {show_resolution(m.worst_resolution)}" for m in found]
    return Sheet("errors", "Errors of the estimates", "", [
        Column("backbone", Kind.TEXT, [backbone_label(m.backbone) for m in found]),
        Column("figure", Kind.TEXT, [m.figure for m in found]),
        Column("cells", Kind.COUNT, [m.points for m in found]),
        Column("typically off by", Kind.PERCENT, [m.median_factor - 1 for m in found]),
        Column("predicted / measured", Kind.NUMBER, [m.median_ratio for m in found]),
        Column("worst", Kind.TEXT, worst),
    ])  # fmt: skip


def achieved_sheet(reached: Sequence[Achieved]) -> Sheet:
    """Return the rates of measured stages, with their shares of the device's ceilings."""
    return Sheet("rates", "Rates reached", "", [
        *_cell_columns([one.cell for one in reached]),
        Column("stage", Kind.TEXT, [one.stage for one in reached]),
        Column("measured", Kind.SECONDS, [one.latency_s for one in reached]),
        Column("TFLOP/s", Kind.NUMBER, [one.flops_per_s / 1e12 for one in reached]),
        Column("of dense rate", Kind.PERCENT, [one.flops_share for one in reached]),
        Column("GB/s", Kind.NUMBER, [one.bytes_per_s / 1e9 for one in reached]),
        Column("of bandwidth", Kind.PERCENT, [one.bytes_share for one in reached]),
    ])  # fmt: skip


def group_sheet(errors: Sequence[GroupError]) -> Sheet:
    """Return the fit's error on each group, included in the fit and left out."""
    return Sheet("fit-errors", "Errors of the fit", "", [
        Column("group", Kind.TEXT, [error.group for error in errors]),
        Column("stages", Kind.COUNT, [error.points for error in errors]),
        Column("typically off by", Kind.PERCENT, [error.fitted - 1 for error in errors]),
        Column("when left out of the fit", Kind.PERCENT, [error.left_out - 1 for error in errors]),
    ])  # fmt: skip


def _comment(prediction: Prediction) -> str:
    estimate = prediction.estimate
    if not estimate.fits:
        return oom_words(estimate.oom_stage)
    launched = [stage for stage, e in estimate.stages.items() if e.launch_bound]
    return f"launch-bound: {', '.join(launched)}" if launched else ""


def _cell_columns(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns that identify cells: backbone, resolution, and every other axis that varies."""
    varied = [
        axis for axis in (varied_axes(cells) if cells else []) if axis not in ("backbone", "resolution")
    ]
    return [
        Column("backbone", Kind.TEXT, [backbone_label(cell.axes.backbone) for cell in cells]),
        Column("resolution", Kind.TEXT, [show_resolution(cell.axes.resolution) for cell in cells]),
        *(
            Column(axis.replace("_", " "), Kind.TEXT, [str(cell.axes.named[axis]) for cell in cells])
            for axis in varied
            if axis not in ("backbone", "resolution")
        ),
    ]
