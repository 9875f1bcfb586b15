"""Tables of a plan: all cells, or a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmprof.plan import Cell, varied_axes
from vlmprof.render.labels import span
from vlmprof.render.tables.columns import token_columns
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value
from vlmprof.settings import AS_BEFORE
from vlmprof.spec import SweepSpec

LONG = 200
"""Number of cells above which a plan is summarized on a terminal, about four screens."""


def head_line(spec: SweepSpec, cells: Sequence[Cell]) -> str:
    """Return the constant axes and the sampling protocol in one line."""
    varied = _named(cells)
    fixed = [
        f"{axis} {value}"
        for axis, value in cells[0].axes.named.items()
        if axis not in varied
        and AS_BEFORE.get(axis) != value
        and all(cell.axes.named[axis] == value for cell in cells)
    ]
    protocol = "sampled until the medians are known"
    if spec.settings.sampling == "fixed":
        protocol = f"{spec.settings.warm_up} warm-up + {spec.settings.iterations} measured iterations"
    return f"{spec.name}: {', '.join(fixed)}; {protocol}"


def plan_sheet(cells: Sequence[Cell], ids: bool = False) -> Sheet:
    """Return one row per cell; constant axes are left to the head line."""
    columns = [Column("cell", Kind.TEXT, [cell.cell_id for cell in cells])] if ids else []
    columns += [
        Column(name.replace("_", " "), Kind.TEXT, [str(cell.axes.named[name]) for cell in cells])
        for name in _named(cells)
    ]
    columns += cell_tokens(cells)
    if any(cell.skip_reason for cell in cells):
        columns.append(Column("skipped because", Kind.TEXT, [cell.skip_reason for cell in cells]))
    return Sheet("plan", "Plan", "", columns)


def plan_row(cell: Cell) -> dict[str, Any]:
    """Return a cell for programs, with the columns of its future row and the reason for skipping it."""
    return {
        "cell_id": cell.cell_id,
        **cell.axes.named,
        "height_px": cell.height_px,
        "width_px": cell.width_px,
        "tiles": cell.tiles,
        "encoder_tokens": cell.encoder_tokens,
        "visual_tokens": cell.visual_tokens,
        "skip_reason": cell.skip_reason,
    }


def cell_tokens(cells: Sequence[Cell], rank: int = 0) -> list[Column]:
    """Return the visual tokens; before them the tiles, if any photo is cut, and the encoder tokens, if their
    number differs."""
    merged = any(cell.encoder_tokens not in (None, cell.visual_tokens) for cell in cells)
    return token_columns(
        [cell.visual_tokens or ("" if cell.skip_reason else "–") for cell in cells],
        [cell.encoder_tokens for cell in cells] if merged else None,
        [cell.tiles for cell in cells] if any(cell.tiles for cell in cells) else None,
        rank,
    )


def summary_sheets(cells: Sequence[Cell]) -> list[Sheet]:
    """Return short tables of the varied axes, the cells of each backbone, and the skipped cells."""
    varied = {
        axis: list(dict.fromkeys(str(c.axes.named[axis]) for c in cells)) for axis in varied_axes(cells)
    }
    sheets = [
        Sheet("varied", "Varied", "", [
            Column("varied", Kind.TEXT, [axis.replace("_", " ") for axis in varied]),
            Column("", Kind.COUNT, [len(values) for values in varied.values()]),
            Column("values", Kind.TEXT, [", ".join(values) for values in varied.values()]),
        ]),
        _backbones_sheet(_by_backbone(cells)),
        _skipped_sheet(_by_backbone([cell for cell in cells if cell.skip_reason is not None])),
    ]  # fmt: skip
    return [sheet for sheet in sheets if len(sheet)]


def _by_backbone(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.axes.backbone, []).append(cell)
    return found


def _backbones_sheet(by_backbone: Mapping[str, Sequence[Cell]]) -> Sheet:
    run = [
        sorted((c for c in own if c.skip_reason is None), key=lambda c: c.height_px * c.width_px)
        for own in by_backbone.values()
    ]
    tokens = [_counts([c.visual_tokens for c in cells]) for cells in run]
    encoded = [_counts([c.encoder_tokens for c in cells]) for cells in run]
    counted = {"encoder tokens": encoded} if any(encoded) and encoded != tokens else {}
    counted |= {"visual tokens": tokens}
    skipped: list[Value] = [
        len(own) - len(cells) or None for own, cells in zip(by_backbone.values(), run, strict=True)
    ]
    return Sheet("backbones", "Backbones", "", [
        Column("backbone", Kind.TEXT, list(by_backbone)),
        Column("cells to run", Kind.COUNT, [len(cells) for cells in run]),
        Column("resolutions", Kind.COUNT, [_range([c.axes.resolution for c in cells]) for cells in run]),
        *(
            Column(title, Kind.COUNT, [_range([f"{count:,}" for count in own]) or "–" for own in counts])
            for title, counts in counted.items()
        ),
        *([Column("skipped", Kind.COUNT, skipped)] if any(skipped) else []),
    ])  # fmt: skip


def _counts(tokens: Sequence[int | None]) -> list[int]:
    return sorted(count for count in tokens if count is not None)


def _skipped_sheet(by_backbone: Mapping[str, Sequence[Cell]]) -> Sheet:
    """Return for each backbone the first reason for skipping, and all other skipped resolutions."""
    reasons: list[Value] = []
    for skipped in by_backbone.values():
        _, *others = dict.fromkeys(cell.axes.resolution for cell in skipped)
        more = f"; also skipped: {', '.join(others)}" if others else ""
        reasons.append(f"{skipped[0].skip_reason}{more}")
    return Sheet("skipped", "Skipped", "", [
        Column("skipped", Kind.COUNT, [len(skipped) for skipped in by_backbone.values()]),
        Column("because", Kind.TEXT, reasons),
    ])  # fmt: skip


def _range(values: Sequence[str]) -> str:
    return span(values[0], values[-1]) if values else ""


def _named(cells: Sequence[Cell]) -> list[str]:
    """Return the axes that have a column."""
    return list(dict.fromkeys(("backbone", "resolution", *varied_axes(cells))))
