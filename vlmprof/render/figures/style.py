"""The style of a line: color and dashes by family, marker by size, marker fill by the other axes, and dashes
by these too once all fills are taken.

If all lines are of one backbone, color and dashes are by the other axes too.

Colors are those of Okabe & Ito (2008) and of Tol's "muted" scheme, which remain distinguishable with all
common color vision deficiencies; dashes and markers do so in grayscale. Dotted lines are reserved for OOM.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vlmprof.analysis.frames import LineName
from vlmprof.render.labels import SIZE_LETTERS, SIZE_WORDS, backbone_words

Named = TypeVar("Named", bound=LineName)

Dash = str | tuple[float, tuple[float, ...]]

_DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.6)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.6, 1.2)), (0, (9, 2)))
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255",
    "#999933", "#44AA99", "#117733", "#AA4499", "#CC6677", "#000000", "#7F7F7F", "#6B4C2A",
)  # fmt: skip
_FAMILY_SLOTS = {
    name: slot
    for slot, name in enumerate(
        (
            "vit", "vmamba", "vitdet", "mambavision", "maxvit", "vit-adapter", "vim", "swin", "convnext v2",
            "siglip", "siglip 2", "clip", "dinov2", "dinov3", "vmamba-s1l8", "vmamba-v0",
        )
    )
}  # fmt: skip
"""Families have the same color in every figure; a family that is not listed takes a free slot."""

_MARKERS = dict(zip(SIZE_LETTERS, "osD^vpP", strict=True))
_OTHER_MARKERS = ("X", "<", ">", "h", "d", "*", "8")
STAGE_COLOURS = {
    "preprocess": "#999933", "vision": "#0072B2", "connector": "#CC79A7", "prefill": "#E69F00",
    "decode": "#009E73",
}  # fmt: skip
"""Colors of stacked stages."""

FILLS = ("full", "none", "left", "top", "right", "bottom")
"""Marker fills, in order, for lines that differ in another axis."""


@dataclass(frozen=True)
class LineStyle:
    """The matplotlib style of a line and its legend entry."""

    colour: str
    dash: Dash
    marker: str
    fill: str

    def line(self, line_pt: float, marker_pt: float) -> dict[str, Any]:
        """Return keyword arguments for `Axes.plot`; line width and marker size are in points.

        A width of 0 leaves markers alone: matplotlib before 3.10 scales dashes to 0 and raises.
        """
        return {
            "color": self.colour,
            "linestyle": self.dash if line_pt else "none",
            "linewidth": line_pt,
            "marker": self.marker,
            "markersize": marker_pt,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markeredgewidth": 0.6,
        }


def by_family(lines: Sequence[Named]) -> list[list[Named]]:
    """Group lines by family, each from the smallest size to the largest."""
    families: dict[str, list[Named]] = {}
    for line in lines:
        families.setdefault(backbone_words(line.backbone)[0], []).append(line)
    sizes = list(SIZE_LETTERS)

    def rank(line: LineName) -> int:
        size = backbone_words(line.backbone)[1].lower()
        return sizes.index(size) if size in sizes else len(sizes)

    in_order = sorted(families, key=lambda family: _FAMILY_SLOTS.get(family.lower(), len(_FAMILY_SLOTS)))
    return [sorted(families[family], key=rank) for family in in_order]


def family_order(lines: Sequence[LineName]) -> list[int]:
    """Return the indices of the lines in the order of `by_family`."""
    places = {line.key: i for i, line in enumerate(lines)}
    return [places[line.key] for family in by_family(lines) for line in family]


def line_styles(lines: Sequence[LineName]) -> dict[tuple[str, ...], LineStyle]:
    """Return a style for each line, by its `key`.

    Lines of the same family share their color, unless all lines are of one backbone: then each setting has
    its own, and the first one the family's.
    """
    words = {line.backbone: backbone_words(line.backbone) for line in lines}
    slots = _slots(dict.fromkeys(family for family, _ in words.values()))
    markers = _markers(dict.fromkeys(words.values()))
    settings = list(dict.fromkeys(tuple(line.setting.values()) for line in lines))
    first = next(iter(slots.values()), 0)
    others = [slot for slot in range(max(len(_COLOURS), len(settings))) if slot != first]
    own = dict(zip(settings, [first, *others], strict=False)) if len(words) == 1 else {}
    styles = {}
    for line in lines:
        family, size = words[line.backbone]
        place = settings.index(tuple(line.setting.values()))
        slot = own.get(settings[place], slots[family])
        # the next dash pattern after all colors, and after all fills of one color
        again = slot // len(_COLOURS) + (0 if own else place // len(FILLS))
        styles[line.key] = LineStyle(
            colour=_COLOURS[slot % len(_COLOURS)],
            dash=_DASHES[(slot + again) % len(_DASHES)],
            marker=markers[family, size],
            fill=FILLS[place % len(FILLS)],
        )
    return styles


def _slots(families: Mapping[str, None]) -> dict[str, int]:
    known = {f: _FAMILY_SLOTS[f.lower()] for f in families if f.lower() in _FAMILY_SLOTS}
    free = (slot for slot in itertools.count() if slot not in known.values())
    return {family: known[family] if family in known else next(free) for family in families}


def _markers(words: Mapping[tuple[str, str], None]) -> dict[tuple[str, str], str]:
    """Return a marker for each (family, size); known sizes have the same marker in all families."""
    markers: dict[tuple[str, str], str] = {}
    for family, size in words:
        known = _MARKERS.get(size[:1].lower() if size.lower() in SIZE_WORDS - {"xl"} else size.lower())
        others = sum(1 for other, _ in markers if other == family)
        markers[family, size] = known or _OTHER_MARKERS[others % len(_OTHER_MARKERS)]
    return markers
