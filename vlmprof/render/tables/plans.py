"""A plan on a terminal or in a pipe: every cell, or a summary of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vlmprof.plan import Cell, varied_axes
from vlmprof.spec import SweepSpec

LONG = 200
"""A plan of more cells is summarised on a terminal: that is some four screens."""


def head_line(spec: SweepSpec, cells: Sequence[Cell]) -> str:
    """What is the same for all cells, and how they are sampled."""
    varied = _named(cells)
    fixed = [f"{axis} {value}" for axis, value in cells[0].axes.named.items() if axis not in varied]
    protocol = "sampled until the medians are known"
    if spec.settings.sampling == "fixed":
        protocol = f"{spec.settings.warm_up} warm-up + {spec.settings.iterations} measured iterations"
    return f"{spec.name}: {', '.join(fixed)}; {protocol}"


def print_cells(console: Console, cells: Sequence[Cell], ids: bool) -> None:
    """One row per cell; axes with one value are left to the head line."""
    varied, skipped = _named(cells), any(cell.skip_reason for cell in cells)
    titles = [*(["cell"] if ids else []), *(name.replace("_", " ") for name in varied), "visual tokens"]
    numbers = len(titles) - 1
    titles += ["skipped because"] if skipped else []
    rows = []
    for cell in cells:
        unknown = "" if cell.skip_reason else "–"
        tokens = unknown if cell.visual_tokens is None else f"{cell.visual_tokens:,}"
        own, reason = [cell.cell_id] if ids else [], [cell.skip_reason or ""] if skipped else []
        rows.append([*own, *(str(cell.axes.named[name]) for name in varied), tokens, *reason])
    widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        _print_lines(console, titles, rows, widths, numbers)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, title in enumerate(titles):
        justify, overflow = ("right" if i == numbers else "left"), ("fold" if i > numbers else "ellipsis")
        table.add_column(title, justify=justify, overflow=overflow)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _print_lines(
    console: Console, titles: list[str], rows: Iterable[list[str]], widths: Sequence[int], right: int
) -> None:
    """What a table of these columns looks like when nothing is folded, in a fraction of its time."""

    def line(words: list[str]) -> str:
        padded = [
            " " * (width - cell_len(word)) + word if i == right else word + " " * (width - cell_len(word))
            for i, (word, width) in enumerate(zip(words, widths, strict=True))
        ]
        return "  ".join(padded)

    console.print(Text(line(titles), style="bold"))
    console.file.write("".join(f"{line(row)}\n" for row in rows))


def print_summary(console: Console, cells: Sequence[Cell]) -> None:
    """What is varied, what each backbone runs and what is skipped, whatever the number of cells."""
    values = {
        axis: list(dict.fromkeys(str(c.axes.named[axis]) for c in cells)) for axis in varied_axes(cells)
    }
    console.print()
    console.print(_varied_table(values))
    console.print()
    console.print(_backbone_table(cells))
    _print_reasons(console, cells)


def _varied_table(values: dict[str, list[str]]) -> Table:
    table = _table("varied", "", "values")
    table.columns[1].justify = "right"
    for axis, known in values.items():
        table.add_row(axis.replace("_", " "), str(len(known)), escape(", ".join(known)))
    return table


def _backbone_table(cells: Sequence[Cell]) -> Table:
    by_backbone: dict[str, list[Cell]] = {}
    for cell in cells:
        by_backbone.setdefault(cell.axes.backbone, []).append(cell)
    skips = any(cell.skip_reason for cell in cells)
    table = _table(
        "backbone", "cells to run", "resolutions", "visual tokens", *(["skipped"] if skips else [])
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for backbone, own in by_backbone.items():
        run = sorted((c for c in own if c.skip_reason is None), key=lambda c: c.height_px * c.width_px)
        tokens = sorted(cell.visual_tokens for cell in run if cell.visual_tokens is not None)
        skipped = [f"{len(own) - len(run):,}" if len(own) > len(run) else ""] if skips else []
        table.add_row(
            escape(backbone),
            f"{len(run):,}",
            _range([cell.axes.resolution for cell in run]),
            _range([f"{count:,}" for count in tokens]) or "–",
            *skipped,
        )
    return table


def _print_reasons(console: Console, cells: Sequence[Cell]) -> None:
    """For each backbone the first of its reasons, and the other resolutions that it skips."""
    by_backbone: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.skip_reason is not None:
            by_backbone.setdefault(cell.axes.backbone, []).append(cell)
    if not by_backbone:
        return
    console.print()
    table = _table("skipped", "because")
    table.columns[0].justify = "right"
    for skipped in by_backbone.values():
        _, *others = dict.fromkeys(cell.axes.resolution for cell in skipped)
        more = f"; nor {', '.join(others)}" if others else ""
        table.add_row(f"{len(skipped):,}", escape(f"{skipped[0].skip_reason}{more}"))
    console.print(table)


def _range(values: Sequence[str]) -> str:
    """The first and the last of sorted values; nothing for none."""
    if not values:
        return ""
    return values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _named(cells: Sequence[Cell]) -> list[str]:
    """The axes that each cell has a column for."""
    return list(dict.fromkeys(("backbone", "resolution", *varied_axes(cells))))


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
