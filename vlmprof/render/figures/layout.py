"""The printed page: widths and type sizes, and a legend and notes that fit under the panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlmprof.render.figures.text_width import text_width_pt

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
    def width_pt(self) -> float:
        return self.width_in * 72 - self.font_pt


PAGES = {
    "one-column": Page(3.5, 1.3, 5.5, 0.8, 2.2),
    "two-column": Page(7.16, 1.75, 7.5, 1.1, 3.4),
}
"""Figure widths by name: those of a column and a text width of an IEEE page."""


def add_legend(figure: Figure, groups: Sequence[list[Line2D]], notes: Sequence[str], page: Page) -> int:
    """Put notes and legend under the panels, one group to a column where that fits; rows of text taken."""
    labels = [str(entry.get_label()) for group in groups for entry in group]
    fitting = max(1, min(len(labels), int(page.width_pt / _entry_pt(labels, page))))
    entries, columns = _in_columns(groups, fitting)
    title = _wrap(notes, page)
    legend = figure.legend(
        handles=entries, loc="outside lower center", ncols=columns, fontsize=page.font_pt, frameon=False,
        handlelength=_HANDLE_EM, columnspacing=_COLUMN_GAP_EM, handletextpad=0.5, labelspacing=0.3,
        borderpad=0.2, title=title or None, title_fontsize=page.font_pt * 0.93,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    legend.get_title().set(color="0.3", ha="center", multialignment="center")
    return -(-len(entries) // columns) + len(title.splitlines())


def _in_columns(groups: Sequence[list[Line2D]], columns: int) -> tuple[list[Line2D], int]:
    """Entries and the number of columns, at most `columns`, that keep groups together in the legend."""
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


def _entry_pt(labels: Sequence[str], page: Page) -> float:
    """Width of a legend column for the widest of these labels, in points."""
    widest = max(text_width_pt(label, page.font_pt) for label in labels)
    return widest + (_HANDLE_EM + 0.5 + _COLUMN_GAP_EM) * page.font_pt


def _wrap(notes: Sequence[str], page: Page) -> str:
    """The notes side by side in as few lines as the page's width allows."""
    lines: list[str] = []
    for note in notes:
        longer = f"{lines[-1]}  {note}" if lines else note
        if lines and text_width_pt(longer, page.font_pt) <= page.width_pt:
            lines[-1] = longer
        else:
            lines.append(note)
    return "\n".join(lines)
