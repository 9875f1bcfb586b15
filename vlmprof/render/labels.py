"""Readable labels for backbones, lines of a figure and cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmprof.records import Status
from vlmprof.units import show_resolution

if TYPE_CHECKING:
    from vlmprof.analysis.frames import Along, LineName
    from vlmprof.analysis.levers import Change
    from vlmprof.analysis.series import FigureData

SIZE_LETTERS = ("t", "s", "b", "l", "h", "g", "xl")
"""Sizes of a family from small to large: the last part of a backbone's name."""

_PROPER_NAMES = {"vit": "ViT", "vitdet": "ViTDet", "vmamba": "VMamba", "vit-adapter": "ViT-Adapter"}
SIZE_WORDS = frozenset({"nano", "tiny", "small", "base", "large", "huge", "giant", *SIZE_LETTERS})


def backbone_words(name: str) -> tuple[str, str]:
    """Return (family, size) of a backbone as legends show them: (`VMamba`, `T`) for `vmamba-t`.

    Names that are neither in the catalog nor declared are split at the last dash if a size follows.
    """
    from vlmprof.backbones import catalog

    if name in catalog.names():
        facts = catalog.facts(name)
        return facts.family, facts.size
    if declared := catalog.declared([name]):
        return declared[name]
    family, _, size = name.rpartition("-")
    if not family or size.lower() not in SIZE_WORDS:
        return _PROPER_NAMES.get(name, name), ""
    return _PROPER_NAMES.get(family, family), size.upper() if len(size) <= 2 else size


def backbone_label(name: str) -> str:
    """Return the label of a backbone in a legend: `VMamba-T`."""
    return "-".join(filter(None, backbone_words(name)))


_UNCLEAR = {("tiling", "none"): "no tiles", ("prefill_chunk", "none"): "one pass", ("frames", "1"): "1 frame"}
"""Values of an axis that a legend without the axis's name has to explain."""
_WORDS = {
    "batch_size": "batch {}", "frames": "{} frames", "prefill_chunk": "chunks of {}",
    "llm_precision": "LLM {}",
}  # fmt: skip


def value_label(axis: str, value: str) -> str:
    """Return the label of one value of an axis, without the others: `ViT-B`, `512²`, `level 4`."""
    if axis == "backbone":
        return backbone_label(value)
    if axis == "resolution":
        return show_resolution(value)
    if (axis, value) in _UNCLEAR:
        return _UNCLEAR[axis, value]
    unclear = value == "none" or value.replace(".", "", 1).isdigit()
    return _WORDS.get(axis, f"{axis.replace('_', ' ')} {{}}" if unclear else "{}").format(value)


def change_label(change: Change) -> str:
    """Return the label of a change of one axis: `pixel-shuffle2 → mlp2`, `level 3 → 4`."""
    before, after = (value_label(change.axis, value) for value in (change.before, change.after))
    head, _, word = before.rpartition(" ")
    return f"{before} → {after.removeprefix(f'{head} ') if head and word else after}"


def line_label(line: LineName) -> str:
    """Return the label of a line in a legend, with its other axes: `VMamba-T · float16 · batch 4`."""
    words = [
        show_resolution(value)
        if axis == "resolution"  # of a search along another axis
        else _UNCLEAR.get((axis, value)) or _WORDS.get(axis, "{}").format(value)
        for axis, value in line.setting.items()
    ]
    return " · ".join([backbone_label(line.backbone), *words])


SIZE_TITLES: dict[Along, str] = {"resolution": "Image size (pixels)", "frames": "Frames per video"}
"""Titles of the axis along which lines run."""


def size_note(figure: FigureData) -> str:
    """Explain the x axis of the scaling figure and its out-of-memory marks."""
    if figure.along == "frames":
        return "Against frames per video. ×: first number of frames out of memory."
    return "Against image size in pixels. ×: first resolution out of memory."


def lever_words(changes: Sequence[Change], most: int | None = None) -> str:
    """Return the labels of changes in one line; beyond `most`, their number: `mlp2 → pool2, … 2 more`."""
    shown = [change_label(change) for change in changes[:most]]
    more = len(changes) - len(shown)
    return ", ".join([*shown, *([f"… {more} more"] if more else [])])


def point_note(figure: FigureData) -> str:
    """Explain the points and bars of the scaling figure."""
    words = "Bars: 95 % interval of the mean."
    if figure.statistic == "median":
        words = "Points: medians. Bars: their 95 % intervals."
    if figure.sums_two_measurements:
        return f"{words} End-to-end latencies of cells that share an LLM are sums of two measurements."
    return words


def omitted_note(figure: FigureData) -> str:
    """Name the panels that the scaling figure leaves out, by reason; empty if there are none."""
    reasons: dict[str, list[str]] = {}
    for panel in figure.omitted:
        reasons.setdefault(str(panel.message), []).append(f"({panel.letter}) {panel.title}")
    return " ".join(f"Left out: {' and '.join(names)}, {why}." for why, names in reasons.items())


STATUS_WORDS = {
    Status.OK: "measured", Status.OOM: "out of memory", Status.ERROR: "failed", Status.TIMEOUT: "timed out",
    Status.SKIPPED: "skipped",
}  # fmt: skip


def oom_words(stage: object) -> str:
    """Describe an out-of-memory status, with its stage if known: `out of memory in vision`."""
    return f"out of memory in {stage}" if isinstance(stage, str) and stage else "out of memory"


def span(first: str, last: str) -> str:
    """Format a range: `224 to 512`, or `224` if both ends are equal."""
    return first if first == last else f"{first} to {last}"


def estimated_note(device: str) -> str:
    """Say that a figure is of estimates."""
    return f"Estimated for {device} from counted costs; nothing was measured."
