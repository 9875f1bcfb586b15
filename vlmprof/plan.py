"""The plan of a sweep: its cells, with stable ids, token counts and reasons for skipping."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlmprof.activity import say
from vlmprof.backbones import catalog, check_promise
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.errors import UserError
from vlmprof.fields import resolution_size
from vlmprof.settings import Axes, AxisValue, Settings
from vlmprof.spec import SweepSpec, digest
from vlmprof.vlm import connector_catalog, llm_catalog
from vlmprof.vlm.hf_vlm import catalog as hf_vlm_catalog


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    cell_id: str
    axes: Axes
    height_px: int
    width_px: int
    """Width of the backbone's input: that of the resolution, or of the padded image."""
    visual_tokens: int | None
    skip_reason: str | None = None
    encoder_tokens: int | None = None
    tiles: int | None = None
    """What a VLM of transformers makes of an image before its connector, if known."""
    distinguished_by: tuple[str, ...] = ()
    """Axes other than backbone and resolution in which the cells of the plan differ."""

    @property
    def line(self) -> tuple[tuple[str, AxisValue], ...]:
        """The axes that all cells of a figure's line share: every axis except the resolution."""
        return tuple((name, value) for name, value in self.axes.named.items() if name != "resolution")

    @property
    def label(self) -> str:
        """A readable name, such as `vmamba-t @ 512`, with the other axes that vary: `…, mode compile`."""
        place = f"{self.axes.backbone} @ {self.axes.resolution}"
        return ", ".join(
            [place, *(f"{name.replace('_', ' ')} {self.axes.named[name]}" for name in self.distinguished_by)]
        )


def cell_id(axes: Axes) -> str:
    """Return a readable, reproducible file name for a cell, with a digest of all its axes."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", f"{axes.backbone}-{axes.resolution}".lower()).strip("-.")
    return f"{readable[-80:]}-{digest(dict(axes.named))}"


def make_plan(spec: SweepSpec, photos: bool = True) -> list[Cell]:
    """Expand a specification to the cells of its grid, line by line, from small to large images.

    A resolution that a backbone does not accept is skipped for that backbone. With `fit = "pad"`, images are
    padded to the next accepted size instead. Without `photos`, VLMs from transformers have no token counts,
    which take them a second per size. Raises `UserError` for an unknown backbone, connector or LLM,
    and for a resolution that no backbone of the sweep accepts.
    """
    lines = _hf_vlm_lines(spec) if "vlm" in spec.axes else _lines(spec)
    resolutions = sorted(spec.axes["resolution"], key=_area)
    pad = spec.settings.fit == "pad"
    known = {facts.name: facts for _, facts in lines if facts is not None}
    for resolution in resolutions:
        if not pad and len(known) == len({line.backbone for line, _ in lines}):
            _refuse_if_none_takes(resolution, known)
    varied = _varied([line for line, _ in lines])
    distinguished_by = tuple(axis for axis in varied if axis not in ("backbone", "resolution"))
    cells = [
        _cell(replace(line, resolution=resolution), facts, pad, distinguished_by)
        for line, facts in lines
        for resolution in resolutions
    ]
    if "vlm" in spec.axes:
        return [of_a_photo(cell, spec.settings) for cell in cells] if photos else cells
    _check_promises(cells)
    return cells


def _check_promises(cells: Sequence[Cell]) -> None:
    """Compare the tokens of each cell with the output of its encoder, for encoders of transformers and timm.

    User modules run only in the process of a cell, where they can do no harm. Raises `UserError` if the
    tokens differ.
    """
    asked = dict.fromkeys(
        (cell.axes.backbone, cell.axes.level, cell.axes.levels, cell.height_px, cell.width_px)
        for cell in cells
        if cell.skip_reason is None
        and cell.axes.vlm is None
        and cell.axes.backbone.startswith(catalog.LIBRARIES)
    )
    for name, level, levels, height, width in asked:
        say(f"building {name} on the meta device for {width}x{height}")
        check_promise(name, level, levels, height, width)


def varied_axes(cells: Sequence[Cell]) -> list[str]:
    """Return the axes in which the cells of a plan differ."""
    return _varied([cell.axes for cell in cells])


def _varied(lines: Sequence[Axes]) -> list[str]:
    """The axes in which these differ, but for the name and LLM of a VLM that its label already names."""
    values = {axis: {line.named[axis] for line in lines} for axis in lines[0].named}
    labels = {
        axis: {(line.backbone, line.named[axis]) for line in lines}
        for axis in ("vlm", "llm")
        if axis in values
    }
    named = {axis for axis, own in labels.items() if "vlm" in values and len(own) == len(values["backbone"])}
    return [axis for axis, own in values.items() if len(own) > 1 and axis not in named]


Line = tuple[Axes, BackboneFacts | None]
"""The axes of a figure's line at its first resolution, and the geometry of its encoder, if known."""


def _lines(spec: SweepSpec) -> list[Line]:
    for name, attention in itertools.product(spec.axes["llm"], spec.axes["attention"]):
        llm_catalog.check(name, spec.settings.stages, spec.settings.logits, attention)
    for name in spec.axes["connector"]:
        connector_catalog.facts(name)
    for name in spec.axes["backbone"]:
        if name not in catalog.ENTRIES:
            say(f"loading torch to build {name} on the meta device")
        catalog.facts(name)
    lines = [Axes(**line) for line in _combinations(spec)]
    return [(line, catalog.facts(line.backbone, line.level)) for line in lines]


def _hf_vlm_lines(spec: SweepSpec) -> list[Line]:
    """Return the lines of VLMs from transformers; their configurations name the backbone and the LLM."""
    known = {name: hf_vlm_catalog.facts(name) for name in spec.axes["vlm"]}
    lines: list[Line] = []
    for line in _combinations(spec):
        facts = known[line["vlm"]]
        axes = Axes(backbone=facts.label, llm=facts.llm, connector=hf_vlm_catalog.CONNECTOR, **line)
        own = spec.settings.processor == "own"
        lines.append((axes, None if own else facts.geometry))
    return lines


def _combinations(spec: SweepSpec) -> list[dict[str, Any]]:
    """Return the axes of each line at its first resolution."""
    values = {name: axis for name, axis in spec.axes.items() if isinstance(axis, tuple)}
    values["resolution"] = spec.axes["resolution"][:1]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _cell(
    axes: Axes,
    facts: BackboneFacts | None,
    pad: bool,
    distinguished_by: tuple[str, ...],
) -> Cell:
    height, width = resolution_size(axes.resolution)
    if pad and facts is not None:
        height, width = facts.padded(height, width)
    takes = facts is None or facts.accepts(height, width)
    return Cell(
        cell_id=cell_id(axes),
        axes=axes,
        height_px=height,
        width_px=width,
        visual_tokens=facts.num_tokens(height, width) if facts is not None and takes else None,
        skip_reason=None if facts is None or takes else _refusal({facts.name: facts}, axes.resolution),
        distinguished_by=distinguished_by,
    )


def of_a_photo(cell: Cell, settings: Settings) -> Cell:
    """Return the cell of a VLM from transformers with the tokens that its own processor makes of a photo, or
    with the reason why it accepts none of this size."""
    if settings.processor != "own" or cell.axes.vlm is None:
        return cell
    # transformers takes seconds to import, and only a VLM of transformers needs it to be planned
    from vlmprof.vlm.hf_vlm.dry_run import dry_run
    from vlmprof.vlm.hf_vlm.own import check_processor, photo_facts

    name, size = str(cell.axes.vlm), (cell.height_px, cell.width_px)
    check_processor(name, settings.processor_backend)
    try:
        photo = photo_facts(name, size, settings.processor_backend)
    except UserError as problem:
        return replace(cell, skip_reason=str(problem))
    planned = replace(cell, visual_tokens=photo.visual_tokens, tiles=photo.tiles)
    say(f"building {name} on the meta device for {cell.axes.resolution}")
    try:
        # a batch has as many tokens per image as one
        run = dry_run(name, size, replace(cell.axes, batch_size=1), settings)
    except UserError:
        return planned  # only a run shows its tokens
    return replace(planned, visual_tokens=run.visual_tokens, encoder_tokens=run.encoder_tokens)


def in_order(cells: Sequence[Cell], order: str, seed: int) -> list[Cell]:
    """Return the cells in running order: by `lines`, `interleaved` from small to large across lines, or
    `random`. The last two keep slow drift of the machine from looking like a difference between backbones."""
    if order == "interleaved":
        return sorted(cells, key=lambda cell: cell.height_px * cell.width_px)
    if order == "random":
        return random.Random(seed).sample(list(cells), len(cells))
    return list(cells)


def _refuse_if_none_takes(resolution: str, known: Mapping[str, BackboneFacts]) -> None:
    height, width = resolution_size(resolution)
    if not any(facts.accepts(height, width) for facts in known.values()):
        raise UserError(_refusal(known, resolution))


def _area(resolution: str) -> int:
    height, width = resolution_size(resolution)
    return height * width


def _refusal(facts: Mapping[str, BackboneFacts], resolution: str) -> str:
    height, width = resolution_size(resolution)
    nearest = sorted({size for known in facts.values() for size in known.nearest(height, width)})
    sizes = " or ".join(str(w) if h == w else f"{w}x{h}" for h, w in nearest)
    return (
        f"{' and '.join(facts)} does not accept {resolution}; the nearest accepted size is {sizes}; "
        "or use fit pad"
    )
