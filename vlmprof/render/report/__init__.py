"""The report of one or more runs, as a self-contained HTML file and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmprof.analysis.runs import Run
from vlmprof.errors import writing
from vlmprof.files import replace_file
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.report import PICTURES
from vlmprof.render.figures.six_panel import draw_six_panel
from vlmprof.render.report.content import Content, gather
from vlmprof.render.report.writers import Picture, html_page, markdown_page

__all__ = ["FORMATS", "write_report"]

FORMATS = ("html", "markdown")

_DPI = 160


def write_report(
    runs: Sequence[Run], folder: Path, formats: Sequence[str] = FORMATS, reference: str | None = None
) -> list[Path]:
    """Write `report.html`, and `report.md` with its pictures, to a folder; return the paths.

    Raises `UserError` if there is nothing to report or the folder is not writable.
    """
    return write_content(gather(runs, reference), folder, formats)


def write_content(content: Content, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the content of a report, as `write_report` does."""
    written, figure_png, figure_name = [], b"", ""
    if not content.no_figure:
        figure = draw_six_panel(content.charts.scaling)
        written += save_figure(figure, folder, "report_six_panel", ["png"], dpi=_DPI)
        figure_png, figure_name = written[0].read_bytes(), written[0].name
    with writing(f"the report to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if "html" in formats:
            page = html_page(content, figure_png)
            written.append(folder / "report.html")
            replace_file(written[-1], page)
        if "markdown" in formats:
            pictures = _save_pictures(content, folder)
            written += [folder / picture.file for shown in pictures.values() for picture in shown]
            written.append(folder / "report.md")
            replace_file(written[-1], markdown_page(content, figure_name, pictures))
    return written


def _save_pictures(content: Content, folder: Path) -> dict[str, list[Picture]]:
    """Draw and save the pictures of `content`; return them by section."""
    saved: dict[str, list[Picture]] = {}
    for section in content.sections:
        for word, caption, draw in PICTURES.get(section.anchor, ()):
            if (figure := draw(content.charts)) is not None:
                path, *_ = save_figure(figure, folder, f"report_{word}", ["png"], dpi=_DPI)
                saved.setdefault(section.anchor, []).append(Picture(path.name, caption))
    return saved
