"""Tables of predictions: counts, estimates and their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from vlmprof.plan import Cell, line_key, varied_axes
from vlmprof.render.labels import backbone_label, oom_words, value_label
from vlmprof.render.tables.columns import axis_column, scaled_column
from vlmprof.render.tables.plans import cell_tokens
from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.units import show_bytes, show_frames, show_resolution

if TYPE_CHECKING:
    from vlmprof.analysis.frames import Along
    from vlmprof.cost.accuracy import Achieved, Miss, Prediction
    from vlmprof.cost.calibration import GroupError
    from vlmprof.cost.count import Counted
    from vlmprof.cost.devices import DeviceSheet


_MOST_LINES = 12
"""Largest number of lines of which each has a sentence of its own."""
_UNKNOWN_RATES = (
    "{precisions}: products are estimated at the data sheet's rates, which torchao's kernels may not reach "
    "in prefill; measure before you choose"
)


def prediction_sheet(predictions: Sequence[Prediction], device: str) -> Sheet:
    """Return one row per cell: latencies of each stage and end to end, peak memory, and whether it fits."""
    estimates = [p.estimate for p in predictions]
    stages = list(dict.fromkeys(name for e in estimates for name in e.stages))
    vision = [p.cost.stages.get("vision") for p in predictions]
    vision_flops = [None if cost is None else cost.flops for cost in vision]
    cell_columns = _cell_columns([p.cell for p in predictions])
    taken = {column.title for column in cell_columns}
    return Sheet(f"estimates-{device}", f"Estimates for {device}", "", [
        *cell_columns,
        *cell_tokens([p.cell for p in predictions], 2),
        scaled_column("vision TFLOP", vision_flops, 1e12, "vision_flops", 3),
        *(
            Column(f"{name} latency" if name in taken else name, Kind.SECONDS,
                   [e.stages[name].latency_s if name in e.stages else None for e in estimates], 2,
                   key=f"{name}_s")
            for name in stages
        ),
        Column("end-to-end", Kind.SECONDS, [e.end_to_end_s for e in estimates], 1),
        Column("peak", Kind.BYTES, [e.peak_allocated_bytes for e in estimates], 1,
               key="peak_allocated_bytes"),
        Column("note", Kind.TEXT, [_comment(p) for p in predictions], key="oom_stage",
               raw=[e.oom_stage for e in estimates]),
    ])  # fmt: skip


def memory_words(device: DeviceSheet, limit_bytes: int | None) -> str:
    """Describe the memory that an estimate allows tensors on a device, and what sets it."""
    usable = show_bytes(device.usable_bytes)
    if limit_bytes is None:
        return f"memory for tensors: {usable}"
    limit = show_bytes(limit_bytes)
    if limit_bytes > device.usable_bytes:
        return f"memory for tensors: {usable}, all that {device.title} has (memory_limit is {limit})"
    return f"memory for tensors: {limit}, the specification's memory_limit ({device.title} has {usable})"


def memory_lines(predictions: Sequence[Prediction], cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for each line of the planned `cells`: the first size that does not fit, or the
    largest that does, and the larger ones that are skipped. Of many lines, those with the most frequent
    sentence are counted."""
    predicted = {prediction.cell.cell_id: prediction for prediction in predictions}
    lines: dict[object, list[Cell]] = {}
    followed = _along(cells)
    for cell in cells:
        lines.setdefault(line_key(cell.axes.named, followed), []).append(cell)
    varied = [axis for axis in varied_axes([own[0] for own in lines.values()]) if axis != "backbone"]
    found = [(_line_name(own[0], varied), _fits_words(own, predicted, followed)) for own in lines.values()]
    if len(found) <= _MOST_LINES:
        return [f"{name}: {words}" for name, words in found]
    ((most, count),) = Counter(words for _, words in found).most_common(1)
    rest = [f"{name}: {words}" for name, words in found if words != most]
    return [*rest, f"each of the {count} {'other ' if rest else ''}lines: {most}"]


def _line_name(cell: Cell, varied: Sequence[str]) -> str:
    words = (value_label(axis, str(cell.axes.named[axis])) for axis in varied)
    return " · ".join([backbone_label(cell.axes.backbone), *words])


def _along(cells: Sequence[Cell]) -> Along:
    """Return the axis along which lines are described: frames if they vary at one resolution."""
    sizes = {cell.axes.resolution for cell in cells}
    return "frames" if len(sizes) == 1 and len({cell.axes.frames for cell in cells}) > 1 else "resolution"


def _fits_words(line: Sequence[Cell], predicted: Mapping[str, Prediction], along: Along) -> str:
    """Describe up to where a line fits."""

    def size_of(cell: Cell) -> str:
        return (
            show_resolution(cell.axes.resolution) if along == "resolution" else show_frames(cell.axes.frames)
        )

    found = [predicted[cell.cell_id] for cell in line if cell.cell_id in predicted]
    if not found:
        return "skipped at every size"
    first = next((prediction for prediction in found if not prediction.estimate.fits), None)
    if first is not None:
        need = first.estimate.peak_allocated_bytes
        return (
            f"first out of memory at {size_of(first.cell)} in {first.estimate.oom_stage} ({show_bytes(need)})"
        )
    largest = found[-1].cell
    above = [cell for cell in line if cell.skip_reason and _area(cell) > _area(largest)]
    words = f"fits up to {size_of(largest)}, the largest "
    if not above:
        return f"{words}in the specification"
    sizes = ", ".join(map(size_of, above))
    return f"{words}that it accepts; {sizes} {'is' if len(above) == 1 else 'are'} skipped"


def _area(cell: Cell) -> int:
    return cell.height_px * cell.width_px


def precision_lines(device: DeviceSheet, precisions: Collection[str]) -> list[str]:
    """Return what is not known of the quantized products on this device, of which nothing was measured."""
    quantized = ", ".join(name for name in precisions if name != "as-dtype")
    return [_UNKNOWN_RATES.format(precisions=quantized)] if quantized and not device.synchronous else []


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
        scaled_column("GFLOP", [s.flops - s.skipped_flops for s in stages], 1e9, "flops", 1),
        Column("moved", Kind.BYTES, [s.moved_bytes + s.scratch_bytes for s in stages], 1),
        Column("least moved", Kind.BYTES, [s.least_bytes for s in stages], 4),
        Column("weights", Kind.BYTES, [s.weight_bytes for s in stages], 1, key="weight_bytes"),
        Column("activations", Kind.BYTES, [s.peak_activation_bytes for s in stages], 2,
               key="peak_activation_bytes"),
        Column("key–value cache", Kind.BYTES, [s.kv_cache_bytes or None for s in stages], 3,
               key="kv_cache_bytes", raw=[s.kv_cache_bytes for s in stages]),
        Column("launches", Kind.COUNT, [s.kernels for s in stages], 3),
    ])  # fmt: skip


def miss_sheet(found: Sequence[Miss], device: str) -> Sheet:
    """Return the errors of predictions by backbone and figure."""
    worst = [f"{m.worst_ratio:.2f} at {show_resolution(m.worst_resolution)}" for m in found]
    return Sheet(f"errors-{device}", f"Errors of the estimates for {device}", "", [
        axis_column("backbone", [m.backbone for m in found]),
        Column("figure", Kind.TEXT, [m.figure for m in found]),
        Column("cells", Kind.COUNT, [m.points for m in found]),
        Column("typically off by", Kind.PERCENT, [m.median_factor - 1 for m in found],
               key="median_error_share"),
        Column("predicted / measured", Kind.NUMBER, [m.median_ratio for m in found], key="median_ratio"),
        Column("worst", Kind.TEXT, worst, key="worst_ratio", raw=[m.worst_ratio for m in found]),
    ])  # fmt: skip


def achieved_sheet(reached: Sequence[Achieved], device: str) -> Sheet:
    """Return the rates of measured stages, with their shares of the device's ceilings."""
    return Sheet(f"rates-{device}", f"Rates reached on {device}", "", [
        *_cell_columns([one.cell for one in reached]),
        Column("stage", Kind.TEXT, [one.stage for one in reached]),
        Column("measured", Kind.SECONDS, [one.latency_s for one in reached]),
        scaled_column("TFLOP/s", [one.flops_per_s for one in reached], 1e12, "flops_per_s"),
        Column("of dense rate", Kind.PERCENT, [one.flops_share for one in reached], key="flops_share"),
        scaled_column("GB/s", [one.bytes_per_s for one in reached], 1e9, "bytes_per_s"),
        Column("of bandwidth", Kind.PERCENT, [one.bytes_share for one in reached], key="bytes_share"),
    ])  # fmt: skip


def group_sheet(errors: Sequence[GroupError]) -> Sheet:
    """Return the fit's error on each group, included in the fit and left out."""
    return Sheet("fit-errors", "Errors of the fit", "", [
        Column("group", Kind.TEXT, [error.group for error in errors]),
        Column("stages", Kind.COUNT, [error.points for error in errors]),
        Column("typically off by", Kind.PERCENT, [error.fitted - 1 for error in errors],
               key="median_error_share"),
        Column("when left out of the fit", Kind.PERCENT, [error.left_out - 1 for error in errors],
               key="median_error_when_left_out_share"),
    ])  # fmt: skip


def _comment(prediction: Prediction) -> str:
    estimate = prediction.estimate
    if not estimate.fits:
        return oom_words(estimate.oom_stage)
    launched = [stage for stage, e in estimate.stages.items() if e.launch_bound and stage != "other"]
    return f"launch-bound: {', '.join(launched)}" if launched else ""


def _cell_columns(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns that identify cells: backbone, resolution, and every other axis that varies."""
    axes = dict.fromkeys(("backbone", "resolution", *(varied_axes(cells) if cells else ())))
    return [axis_column(axis, [cell.axes.named[axis] for cell in cells]) for axis in axes]
