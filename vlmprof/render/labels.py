"""What people read in the place of a backbone's name, a line of a figure, a cell."""

from __future__ import annotations

from vlmprof.analysis.frames import LineName
from vlmprof.analysis.series import FigureData

SIZE_LETTERS = ("t", "s", "b", "l", "h", "g", "xl")
"""Sizes of a family, from small to large, as the last word of a backbone's name."""

_PROPER_NAMES = {"vit": "ViT", "vitdet": "ViTDet", "vmamba": "VMamba", "vit-adapter": "ViT-Adapter"}
SIZE_WORDS = frozenset({"nano", "tiny", "small", "base", "large", "huge", "giant", *SIZE_LETTERS})


def backbone_words(name: str) -> tuple[str, str]:
    """(family, size) of a backbone as a legend writes them: `vmamba-t` is (`VMamba`, `T`).

    Names that the catalog does not know are split at their last dash when what follows is a size.
    """
    from vlmprof.backbones import catalog

    if name in catalog.names():
        facts = catalog.facts(name)
        return facts.family, facts.size
    family, _, size = name.rpartition("-")
    if not family or size.lower() not in SIZE_WORDS:
        return _PROPER_NAMES.get(name, name), ""
    return _PROPER_NAMES.get(family, family), size.upper() if len(size) <= 2 else size


def backbone_label(name: str) -> str:
    """A backbone as a legend writes it: `VMamba-T`."""
    return "-".join(filter(None, backbone_words(name)))


def line_label(line: LineName) -> str:
    """A line as a legend writes it, with what sets it apart: `VMamba-T · float16 · batch 4`."""
    words = [f"batch {value}" if axis == "batch_size" else value for axis, value in line.setting.items()]
    return " · ".join([backbone_label(line.backbone), *words])


def point_note(figure: FigureData) -> str:
    """What points and bars of the scaling figure are, in words."""
    words = "Bars: 95 % interval of the mean."
    if figure.statistic == "median":
        words = "Points: medians. Bars: their 95 % intervals."
    if figure.sums_two_measurements:
        return f"{words} End-to-end of cells that share an LLM: sums of two measurements."
    return words


def oom_words(stage: object) -> str:
    """That memory ran out, and in which stage if that is known: `out of memory in vision`."""
    return f"out of memory in {stage}" if isinstance(stage, str) and stage else "out of memory"
