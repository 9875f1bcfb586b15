"""The report of one or several runs: one self-contained HTML file, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmprof.errors import UserError
from vlmprof.render.report.content import gather
from vlmprof.render.report.pages import html_page, markdown_page
from vlmprof.render.runs import Run
from vlmprof.render.six_panel import save_figure, six_panel

__all__ = ["FORMATS", "write_report"]

FORMATS = ("html", "markdown")


def write_report(
    runs: Sequence[Run], folder: Path, formats: Sequence[str] = FORMATS, reference: str | None = None
) -> list[Path]:
    """Write `report.html`, and `report.md` with its figure, into a folder; the files written.

    Raises `UserError` when there is nothing to report or the folder cannot be written.
    """
    content = gather(runs)
    figure = six_panel(content.drawn, content.samples, reference=reference)
    figure_path, *_ = save_figure(figure, folder, "report_six_panel", ["png"], dpi=160)
    written = [figure_path]
    try:
        if "html" in formats:
            page = html_page(content, figure_path.read_bytes())
            written.append(folder / "report.html")
            written[-1].write_text(page, encoding="utf-8")
        if "markdown" in formats:
            written.append(folder / "report.md")
            written[-1].write_text(markdown_page(content, figure_path.name), encoding="utf-8")
    except OSError as problem:
        raise UserError(f"cannot write the report to {folder}: {problem.strerror or problem}") from None
    return written
