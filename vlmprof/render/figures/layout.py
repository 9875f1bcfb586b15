"""Layout for print: widths, font sizes, and a legend and notes that fit under the panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from vlmprof.analysis.frames import LineName
from vlmprof.analysis.series import QUANTITIES, Unit
from vlmprof.errors import check_known
from vlmprof.render.figures.style import by_family, line_styles
from vlmprof.render.figures.text_width import text_width_pt
from vlmprof.render.labels import line_label
from vlmprof.units import GIB, seconds_unit

_HANDLE_EM, _COLUMN_GAP_EM = 2.6, 1.2


@dataclass(frozen=True)
class Page:
    """Sizes for one width of a printed figure, in inches and points."""

    width_in: float
    row_in: float
    font_pt: float
    line_pt: float
    marker_pt: float

    @property
    def small_pt(self) -> float:
        """The font size of tick labels and notes."""
        return self.font_pt * 0.93

    @property
    def width_pt(self) -> float:
        """The width of the text under the panels, in points."""
        return self.width_in * 72 - self.font_pt


PAGES = {
    "one-column": Page(3.5, 1.3, 5.5, 0.8, 2.2),
    "two-column": Page(7.16, 1.75, 7.5, 1.1, 3.4),
}
"""Figure widths by name: one column, and the text width of an IEEE page."""


def page_of(width: str) -> Page:
    """Return the page for a figure width. Raises `UserError` if it is unknown."""
    check_known("figure width", [width], PAGES)
    return PAGES[width]


def family_entries(lines: Sequence[LineName], line_pt: float, marker_pt: float) -> list[list[Line2D]]:
    """Return a legend entry for each line, by family; with `line_pt` 0, entries show markers only."""
    styles = line_styles(lines)
    return [
        [
            Line2D([], [], label=line_label(line), **styles[line.key].line(line_pt, marker_pt))
            for line in family
        ]
        for family in by_family(lines)
    ]


def across_page(panels: int) -> int:
    """Return the usual number of panels in a row."""
    return 2 if panels == 4 else min(panels, 3)


def label_quantity(axes: Axes, unit: Unit, largest: float, page: Page) -> float:
    """Label the y axis for latencies or memory (s or bytes) up to `largest`; return the size of its unit."""
    name, size = ("GiB", float(GIB)) if unit == "bytes" else seconds_unit(largest)
    axes.set_ylabel(f"{QUANTITIES[unit]} ({name})", fontsize=page.font_pt)
    return size


def panel_grid(
    panels: int,
    groups: Sequence[list[Line2D]],
    notes: Sequence[str],
    page: Page,
    *,
    across: int | None = None,
    row_share: float = 1.0,
    pad_in: float = 0.03,
    spacing: float = 0.02,
) -> tuple[Figure, list[Axes]]:
    """Create a figure with `across` panels per row, and a legend and notes below; return it with its panels.

    `row_share` is the height of a row as a share of the page's, `pad_in` the space around a panel in inches,
    and `spacing` the space between panels as a share of their size.
    """
    across = across or across_page(panels)
    engine = ConstrainedLayoutEngine(w_pad=pad_in, h_pad=pad_in, wspace=spacing, hspace=spacing)
    figure = Figure(dpi=200, facecolor="white", layout=engine)
    text_rows = _add_legend(figure, groups, notes, page) + 0.5
    down = -(-panels // across)
    row_in, text_in = row_share * page.row_in, 1.35 * text_rows * page.font_pt / 72
    figure.set_size_inches(page.width_in, down * row_in + text_in)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.set_visible(False)
    for axes in grid[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=page.small_pt, width=0.6, length=2.5)
    return figure, grid[:panels]


def _add_legend(figure: Figure, groups: Sequence[list[Line2D]], notes: Sequence[str], page: Page) -> int:
    """Add notes and legend below the panels, if possible one group per column; return the rows of text."""
    labels = [str(entry.get_label()) for group in groups for entry in group]
    widest_pt = max(text_width_pt(label, page.font_pt) for label in labels)
    column_pt = widest_pt + (_HANDLE_EM + 0.5 + _COLUMN_GAP_EM) * page.font_pt
    fitting = max(1, min(len(labels), int(page.width_pt / column_pt)))
    font_pt = page.font_pt * min(1.0, page.width_pt / column_pt)  # smaller if a label is wider than the page
    entries, columns = _in_columns(groups, fitting)
    title = "\n".join(_fold(notes, "  ", page.width_pt, page.font_pt))
    legend = figure.legend(
        handles=entries, loc="outside lower center", ncols=columns, fontsize=font_pt, frameon=False,
        handlelength=_HANDLE_EM, columnspacing=_COLUMN_GAP_EM, handletextpad=0.5, labelspacing=0.3,
        borderpad=0.2, title=title or None, title_fontsize=page.small_pt,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    legend.get_title().set(color="0.3", ha="center", multialignment="center")
    return -(-len(entries) // columns) + len(title.splitlines())


def _in_columns(groups: Sequence[list[Line2D]], columns: int) -> tuple[list[Line2D], int]:
    """Arrange entries in at most `columns` columns that keep groups together; return both."""
    merged = [list(group) for group in groups]
    while len(merged) > columns:
        at = min(range(len(merged) - 1), key=lambda i: len(merged[i]) + len(merged[i + 1]))
        merged[at] += merged.pop(at + 1)
    rows = max(map(len, merged))
    entries = [entry for group in groups for entry in group]
    if rows > -(-len(entries) // columns) + 2:
        return entries, columns
    blank = Line2D([], [], linestyle="none", label=" ")
    filled = [[*group, *[blank] * (rows - len(group))] for group in merged]
    return [entry for group in filled for entry in group], len(merged)


def title_panel(axes: Axes, words: str, page: Page, panels: int) -> None:
    """Set the title of one of `panels` panels, folded between the parts of a label."""
    width_pt = page.width_pt / across_page(panels) - 4 * page.font_pt
    lines = _fold(words.split(" · "), " · ", width_pt, page.font_pt)
    axes.set_title("\n".join(lines), fontsize=page.font_pt, pad=4, parse_math=False)


def _fold(parts: Sequence[str], between: str, width_pt: float, font_pt: float) -> list[str]:
    """Join the parts into as few lines as the width allows."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines else part
        if lines and text_width_pt(longer, font_pt) <= width_pt:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
