"""The plan of a sweep: its cells, with stable ids, token counts and reasons for skipping."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlmprof.backbones import catalog, check_promise
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.errors import UserError, joined
from vlmprof.fields import resolution_size
from vlmprof.settings import AS_BEFORE, Axes, AxisValue, Settings
from vlmprof.spec import SweepSpec, digest
from vlmprof.vlm import connector_catalog, llm_catalog, precision
from vlmprof.vlm.hf_vlm import catalog as hf_vlm_catalog
from vlmprof.vlm.tiling import AUTO_TILES, Tiling

LineKey = tuple[tuple[str, AxisValue], ...]


def line_key(axes: Mapping[str, AxisValue], along: str = "resolution") -> LineKey:
    """Return what identifies a line of cells that differ only in the axis `along`: all other axes."""
    return tuple((name, value) for name, value in axes.items() if name != along)


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    cell_id: str
    axes: Axes
    height_px: int
    width_px: int
    """Width of the backbone's input: that of the resolution, or of the padded image. Of the photo, if that
    is cut into tiles."""
    visual_tokens: int | None
    encoder_tokens: int | None = None
    """Tokens of an image or video before the connector; None if only a forward pass can tell."""
    tiles: int | None = None
    """Pictures that a photo, or a frame, is cut into; None if it is not cut."""
    skip_reason: str | None = None
    distinguished_by: tuple[str, ...] = ()
    """Axes other than backbone and resolution in which the cells of the plan differ."""
    repeat: int = 1
    """Which measurement of the cell this is, counted from 1."""

    @property
    def line(self) -> LineKey:
        """The axes that all cells of a figure's line share: every axis except the resolution."""
        return line_key(self.axes.named)

    @property
    def label(self) -> str:
        """A readable name, such as `vmamba-t @ 512`, with the other axes that vary: `…, mode compile`."""
        place = f"{self.axes.backbone} @ {self.axes.resolution}"
        varied = [f"{name.replace('_', ' ')} {self.axes.named[name]}" for name in self.distinguished_by]
        return ", ".join([place, *varied, *([f"repeat {self.repeat}"] if self.repeat > 1 else [])])


def cell_id(axes: Axes) -> str:
    """Return a readable, reproducible file name for a cell, with a digest of all its axes."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", f"{axes.backbone}-{axes.resolution}".lower()).strip("-.")
    # ids of cells with these values are those of versions without the axes
    named = {name: value for name, value in axes.named.items() if AS_BEFORE.get(name) != value}
    return f"{readable[-80:]}-{digest(named)}"


def make_plan(spec: SweepSpec, photos: bool = True) -> list[Cell]:
    """Expand a specification to the cells of its grid, line by line, from small to large images.

    Resolutions that a backbone does not accept and precisions that the device does not support are skipped.
    With `fit = "pad"`, images are padded to the next accepted size. Without `photos`, VLMs from transformers
    have no token counts, which take them a second per size. Raises `UserError` for unknown names, for a
    resolution that no backbone accepts, and if no precision is supported."""
    lines = _hf_vlm_lines(spec) if spec.axes.vlm else _lines(spec)
    resolutions = sorted(spec.axes.resolution, key=_area)
    pad = spec.settings.fit == "pad"
    refused = precision.refusals([axes for axes, _ in lines], spec.settings)
    for resolution in () if pad else resolutions:
        _refuse_if_none_runs(lines, resolution)
    varied = [axis for axis in _varied([line for line, _ in lines]) if axis not in ("backbone", "resolution")]
    cells = [
        _cell(replace(line, resolution=resolution), facts, pad, tuple(varied), reason)
        for (line, facts), reason in zip(lines, refused, strict=True)
        for resolution in resolutions
    ]
    if spec.axes.vlm:
        return [of_a_photo(cell, spec.settings) for cell in cells] if photos else cells
    _check_promises(cells)
    return cells


def _check_promises(cells: Sequence[Cell]) -> None:
    """Compare the tokens of each cell with the output of its encoder, for encoders of transformers and timm.

    User modules run only in the process of a cell, where they can do no harm. Raises `UserError` if the
    tokens differ.
    """
    asked = dict.fromkeys(
        (cell.axes.backbone, cell.axes.level, cell.axes.levels, *_encoded_size(cell))
        for cell in cells
        if cell.skip_reason is None and cell.axes.vlm is None and catalog.of_a_library(cell.axes.backbone)
    )
    for name, level, levels, height, width in asked:
        check_promise(name, level, levels, height, width)


def _encoded_size(cell: Cell) -> tuple[int, int]:
    """(height, width) in pixels of what the backbone is given."""
    tiling = Tiling.of(cell.axes)
    return (cell.height_px, cell.width_px) if tiling is None else (tiling.tile_px, tiling.tile_px)


def varied_axes(cells: Sequence[Cell]) -> list[str]:
    """Return the axes in which the cells of a plan differ."""
    return _varied([cell.axes for cell in cells])


def _varied(lines: Sequence[Axes]) -> list[str]:
    """The axes in which lines differ, without those that the backbone determines: a VLM's name and LLM, and
    the level if there is one per backbone."""
    values = {axis: {line.named[axis] for line in lines} for axis in lines[0].named}

    def is_implied(axis: str) -> bool:
        by_backbone = {(line.backbone, line.named[axis]) for line in lines}
        return len(by_backbone) == len(values["backbone"])

    may_be_implied = ("vlm", "llm") if "vlm" in values else ("level",)
    varied = [axis for axis, own in values.items() if len(own) > 1]
    return [axis for axis in varied if not (axis in may_be_implied and is_implied(axis))]


Line = tuple[Axes, BackboneFacts | None]
"""The axes of a figure's line at its first resolution, and the geometry of its encoder, if known."""


def _lines(spec: SweepSpec) -> list[Line]:
    in_chunks = bool({*spec.axes.prefill_chunk} - {"none"})
    for name, attention in itertools.product(spec.axes.llm, spec.axes.attention):
        llm_catalog.check(name, spec.settings.stages, spec.settings.logits, attention, in_chunks)
    connectors = {name: connector_catalog.facts(name) for name in spec.axes.connector}
    # two lines may be the same: tiles have no effect without tiling, and the last level has a number too
    lines = dict.fromkeys(_axes(line) for line in _combinations(spec))
    return [
        (line, connectors[line.connector].sizes_of(catalog.facts(line.backbone, line.level)))
        for line in lines
    ]


def _axes(line: dict[str, Any]) -> Axes:
    line["level"] = catalog.level_number(line["backbone"], line["level"])
    tile_px, max_tiles = line.pop("tile_size"), line.pop("max_tiles")
    if line["tiling"] == "none":
        return Axes(**line)
    usual_px, usual_tiles = AUTO_TILES[line["tiling"]]
    return Axes(
        **line,
        tile_px=usual_px if tile_px == "auto" else tile_px,
        max_tiles=usual_tiles if max_tiles == "auto" else max_tiles,
    )


def _hf_vlm_lines(spec: SweepSpec) -> list[Line]:
    """Return the lines of VLMs from transformers; their configurations name the backbone and the LLM."""
    known = {name: hf_vlm_catalog.facts(name) for name in spec.axes.vlm}
    if "decode" in spec.settings.stages:
        for facts in known.values():
            hf_vlm_catalog.check_decoding(facts)
    lines: list[Line] = []
    for line in _combinations(spec):
        facts = known[line["vlm"]]
        axes = Axes(backbone=facts.label, llm=facts.llm, connector=hf_vlm_catalog.CONNECTOR, **line)
        own = spec.settings.processor == "own"
        lines.append((axes, None if own else facts.geometry))
    return lines


def _combinations(spec: SweepSpec) -> list[dict[str, Any]]:
    """Return the axes of each line at its first resolution, those with few frames first."""
    frames = tuple(sorted(spec.axes.frames))
    values = replace(spec.axes, resolution=spec.axes.resolution[:1], frames=frames).named
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _cell(
    axes: Axes,
    facts: BackboneFacts | None,
    pad: bool,
    distinguished_by: tuple[str, ...],
    refused: str | None,
) -> Cell:
    height, width = resolution_size(axes.resolution)
    if pad and facts is not None:
        height, width = facts.padded(height, width)
    reason = refused or _skip_reason(axes, facts, (height, width))
    cell = Cell(
        cell_id(axes), axes, height, width, None, skip_reason=reason, distinguished_by=distinguished_by
    )
    return cell if facts is None or reason is not None else _with_tokens(cell, facts)


def _with_tokens(cell: Cell, facts: BackboneFacts) -> Cell:
    axes, size = cell.axes, (cell.height_px, cell.width_px)
    if axes.vlm is not None:
        return replace(cell, visual_tokens=facts.num_tokens(*size))
    connector, tiling = connector_catalog.facts(axes.connector), Tiling.of(axes)
    if tiling is None:
        visual, encoded, tiles = connector.visual_tokens(facts.grid(*size)), facts.num_tokens(*size), None
    else:
        tile, tiles = (tiling.tile_px, tiling.tile_px), tiling.tiles(*size)
        visual = tiling.visual_tokens(*size, connector, facts.grid(*tile))
        encoded = tiles * facts.num_tokens(*tile)
    return replace(
        cell, visual_tokens=axes.frames * visual, encoder_tokens=axes.frames * encoded, tiles=tiles
    )


def of_a_photo(cell: Cell, settings: Settings) -> Cell:
    """Return the cell of a VLM from transformers with the token counts of its own processor, or with a skip
    reason if the processor refuses photos of this size."""
    name, size = cell.axes.vlm, (cell.height_px, cell.width_px)
    if settings.processor != "own" or name is None:
        return cell
    # transformers takes seconds to import, and only a VLM of transformers needs it to be planned
    from vlmprof.vlm.hf_vlm.dry_run import dry_run
    from vlmprof.vlm.hf_vlm.own import check_processor, photo_facts

    check_processor(name, settings.processor_backend)
    try:
        photo = photo_facts(name, size, settings.processor_backend)
    except UserError as problem:
        return replace(cell, skip_reason=str(problem))
    planned = replace(cell, visual_tokens=photo.visual_tokens, tiles=photo.tiles)
    try:
        # a batch has as many tokens per image as one
        run = dry_run(name, size, replace(cell.axes, batch_size=1), settings)
    except UserError:
        return planned  # only a run shows its tokens
    return replace(planned, visual_tokens=run.visual_tokens, encoder_tokens=run.encoder_tokens)


def _area(resolution: str) -> int:
    height, width = resolution_size(resolution)
    return height * width


def _skip_reason(axes: Axes, facts: BackboneFacts | None, size: tuple[int, int]) -> str | None:
    """Return why a cell whose images have this (height, width) in pixels cannot run; None if it can."""
    tiling = Tiling.of(axes)
    if facts is None or (tiling is None and facts.accepts(*size)):
        return None
    if tiling is None:
        return _refusal({_encoder(axes): facts}, axes.resolution)
    try:
        tiling.check(connector_catalog.facts(axes.connector))
    except UserError as problem:
        return str(problem)
    takes = facts.accepts(tiling.tile_px, tiling.tile_px)
    return None if takes else _refusal({_encoder(axes): facts}, str(tiling.tile_px), tiles=True)


def _refuse_if_none_runs(lines: Sequence[Line], resolution: str) -> None:
    """Raise `UserError` if no line accepts a resolution, or the tiles that it is cut into."""
    size = resolution_size(resolution)
    reasons = [_skip_reason(replace(axes, resolution=resolution), facts, size) for axes, facts in lines]
    if not all(reasons):
        return
    if all(axes.tiling == "none" for axes, _ in lines):
        raise UserError(_refusal({_encoder(axes): facts for axes, facts in lines if facts}, resolution))
    raise UserError("; ".join(dict.fromkeys(filter(None, reasons))))


def _encoder(axes: Axes) -> str:
    """The backbone, with the connector if that restricts its sizes."""
    merges = axes.vlm is None and connector_catalog.facts(axes.connector).merged > 1
    return f"{axes.backbone} with {axes.connector}" if merges else axes.backbone


def _refusal(known: Mapping[str, BackboneFacts], resolution: str, tiles: bool = False) -> str:
    height, width = resolution_size(resolution)
    facts = next(iter(known.values()))
    reason = ""
    if len(known) == 1 and replace(facts, grid_multiple=1).accepts(height, width):
        rows, columns = facts.grid(height, width)
        merged = facts.grid_multiple
        reason = f": its {columns} x {rows} tokens cannot be merged {merged} x {merged}"
    does = "does" if len(known) == 1 else "do"
    refused = f"{joined(list(known))} {does} not accept {'tiles of ' if tiles else ''}{resolution}{reason}"
    nearest = sorted({size for one in known.values() for size in one.nearest(height, width)})
    if not nearest:
        return f"{refused}, and no other size works"
    sizes = joined([str(w) if h == w else f"{w}x{h}" for h, w in nearest], "or")
    if tiles:
        return f"{refused}; the nearest accepted tile_size is {sizes}"
    return f"{refused}; the nearest accepted size is {sizes}; or use fit pad"
