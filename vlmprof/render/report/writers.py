"""The pages of a report: self-contained HTML, and Markdown.

All text from a run is escaped: by jinja in HTML, by `markdown_escape` in Markdown, and in JSON by escaping
`<`, so that no string can end its script element. `report.js` sets text, never markup. The content security
policy of the page forbids loading anything.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from vlmprof.render.labels import omitted_note, point_note, size_note
from vlmprof.render.report.charts import chart_data
from vlmprof.render.report.content import Content, environment_sheet
from vlmprof.render.tables.export import markdown_escape, to_markdown
from vlmprof.render.tables.sheet import Sheet
from vlmprof.version import __version__

ROWS_PER_PAGE = 25
"""Rows of a table in the HTML itself; the script shows the others from the embedded data."""

_MARKDOWN_ROWS = 100


@dataclass(frozen=True)
class Picture:
    """A picture file that the Markdown links to, with its caption."""

    file: str
    caption: str


def html_page(content: Content, figure_png: bytes) -> str:
    """Render the report as one HTML file; without scripts, it shows `figure_png` instead of the charts."""
    template = _environment(autoescape=True).get_template("report.html.j2")
    sheets = [sheet for section in content.sections for sheet in section.sheets]
    return template.render(
        content=content,
        **_common(content),
        rows_per_page=ROWS_PER_PAGE,
        environment_sheet=environment_sheet,
        style=_text("report.css"),
        script=_text("report.js"),
        plotly=_plotly(),
        data=_json(
            {"charts": chart_data(content.charts), "sheets": {s.name: _sheet_data(s) for s in sheets}}
        ),
        figure=base64.b64encode(figure_png).decode(),
        version=__version__,
    )


def markdown_page(
    content: Content, figure_name: str, pictures: Mapping[str, Sequence[Picture]] | None = None
) -> str:
    """Render the report as Markdown with links to its figure and to the `pictures` by section anchor."""
    template = _environment(autoescape=False).get_template("report.md.j2")
    return template.render(
        content=content,
        **_common(content),
        figure=figure_name,
        pictures=pictures or {},
        table=lambda sheet: to_markdown(sheet, _MARKDOWN_ROWS),
        environment_sheet=environment_sheet,
        version=__version__,
    )


def _common(content: Content) -> dict[str, Any]:
    figure = content.charts.scaling
    count = {6: "Six", 4: "Four"}.get(len(figure.panels), str(len(figure.panels)))
    sizes = "image size" if figure.along == "resolution" else "frames per video"
    return {
        "points": f"{point_note(figure)} {size_note(figure)}",
        "left_out": omitted_note(figure),
        "section_titles": {s.anchor: s.title for s in content.sections} | {"warnings": "Warnings"},
        "figure_alt": f"{count} panels: latency by stage and end to end, and peak memory, against {sizes}",
    }


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown_escape
    environment.filters["slug"] = lambda title: re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))
    environment.filters["fenced"] = lambda text: text.replace("```", "'''")
    return environment


def _text(name: str) -> str:
    return resources.files("vlmprof.render.report").joinpath("templates", name).read_text(encoding="utf-8")


def _plotly() -> str:
    """Return plotly.js from the plotly package, without the slow import of that package."""
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _sheet_data(sheet: Sheet) -> Mapping[str, Any]:
    return {
        "kinds": [column.kind for column in sheet.columns],
        "columns": [column.values for column in sheet.columns],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
