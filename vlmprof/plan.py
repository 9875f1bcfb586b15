"""From a specification to the list of cells: stable ids, token counts, reasons for what is skipped."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmprof.backbones import catalog
from vlmprof.errors import UserError
from vlmprof.fields import AXES, resolution_size
from vlmprof.records import AxisValue
from vlmprof.spec import SweepSpec, digest
from vlmprof.vlm import connector_catalog, llm_catalog


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    cell_id: str
    axes: Mapping[str, AxisValue]
    height_px: int
    width_px: int
    visual_tokens: int | None
    skip_reason: str | None = None

    @property
    def line(self) -> tuple[tuple[str, AxisValue], ...]:
        """What the cells of one line of the figure share: every axis but the resolution."""
        return tuple((name, value) for name, value in self.axes.items() if name != "resolution")

    @property
    def label(self) -> str:
        """For people: `vmamba-t @ 512`."""
        return f"{self.axes['backbone']} @ {self.axes['resolution']}"


def cell_id(axes: Mapping[str, AxisValue]) -> str:
    """A file name for a cell, the same wherever it is planned: readable, with a digest of all axes."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", f"{axes['backbone']}-{axes['resolution']}".lower()).strip("-.")
    return f"{readable[-80:]}-{digest(dict(axes))}"


def make_plan(spec: SweepSpec) -> list[Cell]:
    """Every cell of the grid, line by line and from small to large images.

    Raises `UserError` for an unknown backbone, connector or LLM, and for a resolution that no
    backbone of the sweep can take. A resolution that only some can take is skipped for the others.
    """
    for name in spec.axes["llm"]:
        llm_catalog.facts(str(name))
    for name in spec.axes["connector"]:
        connector_catalog.facts(str(name))
    facts = {str(name): catalog.facts(str(name)) for name in spec.axes["backbone"]}
    resolutions = sorted(map(str, spec.axes["resolution"]), key=_area)
    for resolution in resolutions:
        height, width = resolution_size(resolution)
        if not any(known.accepts(height, width) for known in facts.values()):
            raise UserError(_refusal(facts, resolution))

    other = [name for name in AXES if name != "resolution"]
    cells = []
    for values in itertools.product(*(spec.axes[name] for name in other)):
        line = dict(zip(other, values, strict=True))
        known = catalog.facts(str(line["backbone"]), int(line["level"]))
        for resolution in resolutions:
            axes = {name: resolution if name == "resolution" else line[name] for name in AXES}
            height, width = resolution_size(resolution)
            takes = known.accepts(height, width)
            cells.append(
                Cell(
                    cell_id=cell_id(axes),
                    axes=axes,
                    height_px=height,
                    width_px=width,
                    visual_tokens=known.num_tokens(height, width) if takes else None,
                    skip_reason=None if takes else _refusal({known.name: known}, resolution),
                )
            )
    return cells


def in_order(cells: Sequence[Cell], order: str, seed: int) -> list[Cell]:
    """Cells as they are to run: `lines` one after another, `interleaved` from small to large across the
    lines, or `random`. A slow drift of the machine then does not become a difference between backbones."""
    if order == "interleaved":
        return sorted(cells, key=lambda cell: cell.height_px * cell.width_px)
    if order == "random":
        return random.Random(seed).sample(list(cells), len(cells))
    return list(cells)


def _area(resolution: str) -> int:
    height, width = resolution_size(resolution)
    return height * width


def _refusal(facts: Mapping[str, catalog.BackboneFacts], resolution: str) -> str:
    height, width = resolution_size(resolution)
    nearest = sorted({size for known in facts.values() for size in known.nearest(height, width)})
    sizes = " or ".join(str(w) if h == w else f"{w}x{h}" for h, w in nearest)
    return f"{' and '.join(facts)} cannot take {resolution}; the nearest that fits is {sizes}"
