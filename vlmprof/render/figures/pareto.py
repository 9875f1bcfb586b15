"""The figure of the Pareto front: quality against each cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from vlmprof.analysis.advice import Advice, Limits
from vlmprof.analysis.frames import Line, LineName, axis_word, numbers, split_lines
from vlmprof.analysis.levers import levers_of
from vlmprof.errors import joined
from vlmprof.measure.statistics import Floats
from vlmprof.render.figures.layout import Page, family_entries, page_of, panel_grid
from vlmprof.render.figures.style import line_styles
from vlmprof.render.figures.ticks import plain_log_labels
from vlmprof.render.labels import estimated_note, lever_words, value_label
from vlmprof.render.tables.decisions import COST_WORDS
from vlmprof.render.tables.sheet import show, unit_of_kind
from vlmprof.units import show_resolution

_MOST_LINES = 12
"""Largest number of configurations with markers of their own."""
_MOST_RECOMMENDED = 60
"""Largest number of recommended cells that are all circled and joined."""
_MOST_COVERED = 3
"""Largest number of cells below a label."""
_MOST_CHANGES = 2
"""Largest number of levers in the label of a step."""


def pareto_figure(advice: Advice, limits: Limits, width: str = "two-column") -> Figure:
    """Draw a panel of quality against each cost: the recommended cells circled, connected and labelled, those
    over a limit pale. The steps between neighbours are labelled with the levers that they pull.

    Raises `UserError` for an unknown width.
    """
    page = page_of(width)
    lines = _styled_lines(advice)
    legend = family_entries(lines, 0.0, page.marker_pt * 1.3)
    figure, grid = panel_grid(
        len(advice.costs), legend, _notes(advice, limits), page, across=min(len(advice.costs), 2),
        row_share=1.4,
    )  # fmt: skip
    labels = [
        _draw(axes, advice, lines, limits, cost, page) for axes, cost in zip(grid, advice.costs, strict=True)
    ]
    for name in chain(*labels):
        name.set_in_layout(False)  # the panels keep the places that the labels are checked in
    figure.draw_without_rendering()
    for axes, panel in zip(grid, labels, strict=True):
        _hide_overlaps(axes, panel)
    return figure


def _curves(advice: Advice, cost: str) -> list[list[int]]:
    """Return the positions within `advice.chosen` of the cells to join, best first: those of equal images and
    LLM or, if there are too many, those of each LLM that no other beats in this panel."""
    return advice.envelopes(cost) if _crowded(advice) else advice.curves


def _crowded(advice: Advice) -> bool:
    return len(advice.chosen) > _MOST_RECOMMENDED


def _styled_lines(advice: Advice) -> Sequence[LineName]:
    """Return what markers tell apart: every configuration, or the backbones alone if those are many."""
    lines = split_lines(advice.cells)
    if len(lines) <= _MOST_LINES:
        return lines
    return [LineName(name, {}) for name in dict.fromkeys(line.backbone for line in lines)]


def _numbered(advice: Advice) -> bool:
    """Return whether points are labelled with their rows in the table, because their names are too long."""
    return len(levers_of(advice.cells)) > 2


def _notes(advice: Advice, limits: Limits) -> list[str]:
    crowded = _crowded(advice)
    notes = [
        "Solid: recommended. Circled: none is better at a lower cost." if crowded else "Circled: recommended."
    ]
    if advice.estimated_for is not None:
        notes.insert(0, estimated_note(advice.estimated_for))
    if _numbered(advice):
        notes.append("Numbers: rows of the table.")
    if crowded and any(len(_curves(advice, cost)) > 1 for cost in advice.costs):
        notes.append("Joined: equal LLM.")
    elif not crowded and len(advice.curves) > 1:
        words = {"pixels": "images", "frames": "frames", "weight_prefill_bytes": "LLM"}
        notes.append(f"Joined: equal {joined([words[column] for column in advice.joined_by])}.")
    if any(len(own) > 1 for cost in advice.costs for own in _curves(advice, cost)):
        notes.append("Labels of steps: what changes towards the better cell.")
    given = {cost: limit for cost in advice.costs if (limit := limits.of(cost)) is not None}
    if crowded or not advice.candidates["fits"].all():
        unknown = advice.candidates[list(given)].isna().any(axis=None)
        over = "over a limit, or not known to be within it" if unknown else "over a limit"
        notes.append("Pale: not recommended." if crowded else f"Pale: {over}.")
    drawn = {cost for cost, limit in given.items() if _range(advice, cost, limit)[1] >= limit}
    if drawn:
        notes.append("Dashed: limit.")
    for cost in given.keys() - drawn:
        title, kind = COST_WORDS[cost]
        notes.append(f"The limit of {show(kind, given[cost])} on {title} is right of the panel.")
    return notes


def _range(advice: Advice, cost: str, limit: float | None) -> tuple[float, float]:
    """Return the lowest cost and the highest, or the limit if it is at most twice as high."""
    costs = numbers(advice.candidates, cost)
    known = costs[costs > 0]  # what costs nothing has no place on a logarithmic axis
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    return min(low, limit or low), max(high, limit) if limit and limit <= 2 * high else high


def _draw(
    axes: Axes, advice: Advice, lines: Sequence[LineName], limits: Limits, cost: str, page: Page
) -> list[Annotation]:
    """Draw one panel; return the labels of its front, the most important first."""
    rows = advice.candidates
    title, kind = COST_WORDS[cost]
    x, y = numbers(rows, cost), numbers(rows, advice.shown_quality)
    unit, size = unit_of_kind(kind, float(np.nanmax(x)))
    x = x / size
    solid = rows["on_front" if _crowded(advice) else "fits"].to_numpy(dtype=bool)
    styles = line_styles(lines)
    for line in lines:
        mine = _members(rows, line)
        look = styles[line.key].line(0.0, page.marker_pt * 1.3)
        for chosen, alpha in ((mine & solid, 1.0), (mine & ~solid, 0.3)):
            axes.plot(x[chosen], y[chosen], **look, alpha=alpha, zorder=3, gid="cells")
    front = rows.index.get_indexer(advice.chosen.index)
    curves = _curves(advice, cost)
    for own in curves:
        places = front[own[::-1]]
        axes.plot(
            x[places], y[places], color="0.4", linewidth=0.5 * page.line_pt, marker="o", fillstyle="none",
            markersize=2.4 * page.marker_pt, markeredgewidth=0.6, zorder=2, gid="front",
        )  # fmt: skip
    limit = limits.of(cost)
    low, high = _range(advice, cost, limit)
    if limit is not None and limit <= high:
        axes.axvline(limit / size, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), gid="limit")
    axes.set_xlabel(f"{title}{unit and f' ({unit})'}", fontsize=page.font_pt)
    axes.grid(True, color="0.92", linewidth=0.5)
    axes.margins(y=0.2 if _crowded(advice) else 0.1)
    _scale_costs(axes, low / size, high / size, page)
    _label_quality(axes, advice, page)
    return [*_point_labels(axes, advice, curves, x[front], y[front], page),
            *_step_labels(axes, advice, curves, x[front], y[front], page)]  # fmt: skip


def _members(rows: pd.DataFrame, line: LineName) -> npt.NDArray[np.bool_]:
    if isinstance(line, Line):
        return rows["cell_id"].isin(line.rows["cell_id"]).to_numpy()
    return (rows["backbone"] == line.backbone).to_numpy()


def _point_labels(
    axes: Axes, advice: Advice, curves: Sequence[Sequence[int]], x: Floats, y: Floats, page: Page
) -> list[Annotation]:
    """Name the joined cells of the front, best first, or number them as in the table."""
    chosen, numbered = advice.chosen, _numbered(advice)
    if not numbered:
        axes_named = list(dict.fromkeys(["backbone", "resolution", *levers_of(advice.cells)]))
        labels = [
            " ".join(value_label(axis, axis_word(axis, row[axis])) for axis in axes_named)
            for row in chosen.to_dict("records")
        ]
        return [_label(axes, label, (x[i], y[i]), page, 0.8, "cell") for i, label in enumerate(labels)]
    named = [own for own in curves if own] if advice.detail else []
    heads = [_label(axes, _curve_name(advice, own), (x[own[0]], y[own[0]]), page, 0.8, "curve")
             for own in named]  # fmt: skip
    if _crowded(advice):  # where the upper ends are close, the lower ends are named
        for own in named:
            for offset, ha, va in (((0, -8), "center", "top"), ((-8, 0), "right", "center")):
                heads.append(
                    _label(axes, _curve_name(advice, own), (x[own[-1]], y[own[-1]]), page, 0.8, "curve")
                )
                heads[-1].set(position=offset, ha=ha, va=va)
    places = [
        axes.annotate(
            str(i + 1), (x[i], y[i]), xytext=(4, -2), textcoords="offset points", ha="left", va="top",
            fontsize=page.font_pt * 0.72, gid="cell",
        )
        for i in sorted(i for own in curves for i in own)
    ]  # fmt: skip
    return [*heads, *places]


def _curve_name(advice: Advice, curve: Sequence[int]) -> str:
    """Name what the cells of a curve have in common: image size, frames and LLM."""
    rows = advice.chosen.iloc[list(curve)]
    sizes = rows["pixels"].unique()
    drawn = advice.shown_quality == "visual_tokens" and len(sizes) == 1
    varied = [axis for axis in ("frames", "llm", "llm_precision") if axis in levers_of(advice.cells)]
    common = [axis for axis in varied if rows[axis].nunique() == 1]
    words = [value_label(axis, axis_word(axis, rows[axis].iloc[0])) for axis in common]
    return ("\n" if _crowded(advice) else " ").join([*([f"{sizes[0] ** 0.5:.0f}²"] if drawn else []), *words])


def _label(axes: Axes, words: str, at: tuple[float, float], page: Page, size: float, kind: str) -> Annotation:
    """Add a label at the upper left of a point, with `size` as a share of the page's font size."""
    return axes.annotate(
        words, at, xytext=(-4, 2), textcoords="offset points", ha="right", va="bottom", gid=kind,
        fontsize=page.font_pt * size, parse_math=False,
    )  # fmt: skip


def _step_labels(
    axes: Axes, advice: Advice, curves: Sequence[Sequence[int]], x: Floats, y: Floats, page: Page
) -> list[Annotation]:
    """Label the middle of each step with the levers that it pulls, those with a single lever first."""
    log_y = advice.quality == "pixels"  # visual tokens too
    found = []
    steps = [(advice.step(below, i), below, i) for own in curves for i, below in pairwise(own)]
    for changes, below, i in sorted(steps, key=lambda step: len(step[0])):
        words = lever_words(changes, most=_MOST_CHANGES)
        middle_y = np.sqrt(y[i] * y[below]) if log_y else (y[i] + y[below]) / 2
        middle = (float(np.sqrt(x[i] * x[below])), float(middle_y))
        found.append(_label(axes, words, middle, page, 0.72, "lever"))
        found[-1].set(color="0.3", style="italic")
    return found


def _scale_costs(axes: Axes, low: float, high: float, page: Page) -> None:
    """Make the cost axis logarithmic, with room on the left for the labels of the front."""
    low, high = np.log(low), np.log(high)
    span = high - low or 1.0
    panel_pt = page.width_pt / 2 - 6 * page.font_pt
    name_share = min(9 * page.font_pt / panel_pt, 0.6)
    low, high = low - span * name_share / (1 - name_share), high + 0.06 * span
    axes.set_xlim(float(np.exp(low)), float(np.exp(high)))  # first: one point has no limits of its own
    axes.set_xscale("log")
    plain_log_labels(axes.xaxis)


def _hide_overlaps(axes: Axes, names: list[Annotation]) -> None:
    """Hide labels that overlap an earlier visible one or a line of the front, cover many cells, or leave
    their panel, and names of curves that are there already or close to another curve."""
    fronts = [line.get_transform().transform_path(line.get_path()) for line in axes.get_lines()
              if line.get_gid() == "front"]  # fmt: skip
    cells = [line.get_xydata() for line in axes.lines if line.get_gid() == "cells"]
    places = axes.transData.transform(np.concatenate(cells))
    panel, kept, named = axes.get_window_extent(), list[Bbox](), set[str]()
    for name in names:
        box, curve = name.get_window_extent(), name.get_gid() == "curve"
        clear = not any(box.overlaps(other) for other in kept)
        clear &= box.x0 >= panel.x0 and box.count_contains(places) <= _MOST_COVERED
        clear &= not any(front.intersects_bbox(box, filled=False) for front in fronts)
        if curve and clear:
            at, close = axes.transData.transform(name.xy), box.padded(float(name.get_fontsize()))
            ends = [np.asarray(front.vertices) for front in fronts]
            others = [end for end in ends if not np.isclose(end, at).all(axis=1).any()]
            clear &= not any(close.contains(float(x), float(y)) for end in others for x, y in end)
            clear &= panel.y0 <= box.y0 and box.y1 <= panel.y1 and box.x1 <= panel.x1
            clear &= name.get_text() not in named
        name.set_visible(clear)
        if clear:
            kept.append(box)
            named |= {name.get_text()} if curve else set()


def _label_quality(axes: Axes, advice: Advice, page: Page) -> None:
    """Label the y axis; image sizes, visual tokens and frames are on a logarithmic one."""
    rows, shown = advice.candidates, advice.shown_quality
    seen = "seen, " if "tiling" in levers_of(advice.cells) else ""
    titles = {
        "visual_tokens": "Visual tokens",
        "frames": "Frames per video",
        "pixels": f"Image size ({seen}pixels)",
    }
    title = titles.get(shown, shown.replace("_", " "))
    axes.set_ylabel(title, fontsize=page.font_pt, parse_math=False)
    if shown in titles:
        axes.set_yscale("log")
    if shown == "visual_tokens":
        plain_log_labels(axes.yaxis)
    if shown == "frames":
        _label_values(axes, np.unique(numbers(rows, shown)).tolist(), lambda value: f"{value:g}")
    if shown == "pixels":
        pixels = numbers(rows, shown)
        whole = pixels == numbers(rows, "height_px") * numbers(rows, "width_px")
        names = dict(zip(pixels[whole], rows["resolution"][whole], strict=True))
        apart = [float(pixels.max())]
        for value in np.unique(pixels)[::-1].tolist():
            if value * 1.7 <= apart[-1]:
                apart.append(value)
        _label_values(axes, apart, lambda value: show_resolution(names.get(value, f"{value**0.5:.0f}")))


def _label_values(axes: Axes, values: Sequence[float], label: Callable[[float], str]) -> None:
    axes.yaxis.set_major_locator(FixedLocator(values))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
