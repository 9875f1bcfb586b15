"""Export of a run's rows and tables to CSV, Parquet, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from vlmprof.analysis.charts import fitted_panels
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.frames import RunSamples, split_lines
from vlmprof.analysis.runs import Run
from vlmprof.errors import UserError, check_known, writing
from vlmprof.files import replace_file, replacing
from vlmprof.records import INTEGERS
from vlmprof.render.figures.files import FORMATS
from vlmprof.render.figures.six_panel import save_six_panel
from vlmprof.render.tables.scaling import run_tables, scaled_columns
from vlmprof.render.tables.sheet import Sheet, sheet_records

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}",
    "[": "{[}", "*": "{*}", "-": "-{}",
    "²": r"\textsuperscript{2}", "×": r"$\times$", "±": r"$\pm$", "µ": r"\textmu{}", "·": r"$\cdot$",
    "°": r"\textdegree{}",
    "…": r"\ldots{}", "−": "$-$", "–": "--", "∞": r"$\infty$", "→": r"$\rightarrow$", "√": r"$\surd$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "μ": r"$\mu$", "σ": r"$\sigma$", "ρ": r"$\rho$",
    "′": "$'$", "″": "$''$", "‘": "`", "’": "'", "“": "``", "”": "''", "—": "---",
}  # fmt: skip
_MARKDOWN = str.maketrans({
    "\\": "\\\\", "|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;", "*": "\\*", "_": "\\_", "`": "\\`",
    "[": "\\[", "]": "\\]", "\n": " ", "\r": " ",
})  # fmt: skip


_UNKNOWN_LETTERS = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
"""Letters below U+0180 that LaTeX's default font encoding lacks."""


def latex_escape(text: str) -> str:
    """Escape a text for LaTeX with its default encodings. Unsupported letters lose their accent; other
    unsupported characters become `?`."""
    return "".join(_LATEX.get(character) or _plain(character) for character in " ".join(text.split()))


def _plain(character: str) -> str:
    known = character.isascii() or (character.isalpha() and character < "\u0180")
    if character.isprintable() and known and character not in _UNKNOWN_LETTERS:
        return character
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return base if base.isascii() and base.isalnum() else "?"


def markdown_escape(text: str) -> str:
    """Escape a text for Markdown and HTML within it, on one line."""
    return text.translate(_MARKDOWN)


def to_latex(sheet: Sheet) -> str:
    """Render a `table` for `\\usepackage{booktabs}`: numbers right-aligned, the note below as the caption."""
    columns = "".join("r" if numeric else "l" for numeric in sheet.numeric)
    head = " & ".join(latex_escape(_capital(column.title)) for column in sheet.columns)
    body = "\n".join(
        f"    {' & '.join(latex_escape(text) for text in row)} \\\\" for row in sheet.text_rows()
    )
    return (
        "% \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\caption{{{latex_escape(sheet.title)}. {latex_escape(sheet.note)}}}\n"
        f"  \\label{{tab:{sheet.name}}}\n"
        f"  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n"
        f"{body}\n    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
    )


def to_markdown(sheet: Sheet, most: int | None = None) -> str:
    """Render a pipe table; with `most`, at most that many rows and a line about the omitted ones."""
    head = "| " + " | ".join(markdown_escape(_capital(column.title)) for column in sheet.columns) + " |"
    rule = "| " + " | ".join("---:" if numeric else "---" for numeric in sheet.numeric) + " |"
    rows = ["| " + " | ".join(markdown_escape(text) for text in row) + " |" for row in sheet.text_rows(most)]
    if most is not None and len(sheet) > most:
        rows.append(f"\nThe first {most:,} of {len(sheet):,} rows; `vlmprof export` writes all of them.")
    return "\n".join([head, rule, *rows]) + "\n"


def to_csv(sheet: Sheet) -> str:
    """Render raw numbers with units in the header; intervals take three columns."""
    records = sheet_records(sheet)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


SHEET_WRITERS: dict[str, tuple[str, Callable[[Sheet], str]]] = {
    "csv": ("csv", to_csv),
    "latex": ("tex", to_latex),
    "markdown": ("md", to_markdown),
}
"""File suffix and writer of each table format."""

ROW_FORMATS = ("csv", "parquet")
"""Formats for the rows of a run with all columns."""


def write_rows(frame: pd.DataFrame, path: Path, kind: str) -> Path:
    """Write all columns of all rows. In CSV, lists and objects are JSON text.

    Raises `UserError` if the Parquet library is missing or the file is not writable.
    """
    plain = frame.copy()
    for column in ("backends", "warnings", "disturbances"):
        if column in plain:
            plain[column] = plain[column].map(lambda value: json.dumps(value, sort_keys=True))
    whole = {name: "Int64" for name in plain if name in INTEGERS and plain[name].dtype == "float64"}
    plain = plain.astype({name: kind for name, kind in whole.items() if not (plain[name] % 1).any()})
    if kind == "parquet":
        # a column with only nulls has no type
        plain = plain.astype({c: "float64" for c in plain if plain[c].isna().all()})
    try:
        with writing(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                if kind == "csv":
                    plain.to_csv(draft, index=False, errors="replace")
                else:
                    plain.to_parquet(draft, index=False)
    except ImportError:
        raise UserError("Parquet needs pyarrow; pip install 'vlmprof[parquet]'") from None
    return path


def write_sheet(sheet: Sheet, folder: Path, kind: str) -> Path:
    """Write a table to `folder/NAME.SUFFIX`. Raises `UserError` if that fails."""
    suffix, writer = SHEET_WRITERS[kind]
    path = folder / f"{sheet.name}.{suffix}"
    with writing(str(path)):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, writer(sheet))
    return path


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def export_run(
    run: Run, folder: Path, formats: Sequence[str], tables: Sequence[str] | None, width: str
) -> list[Path]:
    """Write a run's rows, tables and figure in each format; return the paths.

    Raises `UserError` for an unknown format, table or figure width, or a folder that is not writable.
    """
    check_known("export format", formats, (*ROW_FORMATS, *SHEET_WRITERS, *FORMATS))
    sheets = {sheet.name: sheet for sheet in run_sheets(run.frame, run.samples)}
    check_known("table", tables or (), sheets)
    written = []
    for name in dict.fromkeys(formats):
        if name in ROW_FORMATS:
            written.append(write_rows(run.rows, folder / f"rows.{name}", name))
        if name in SHEET_WRITERS:
            written += [write_sheet(sheets[table], folder, name) for table in tables or sheets]
    images = [name for name in dict.fromkeys(formats) if name in FORMATS]
    if images:
        written += save_six_panel(
            run.frame, folder, run.samples, formats=images, statistic=run.statistic, width=width
        )
    return written


def run_sheets(frame: pd.DataFrame, samples: RunSamples) -> list[Sheet]:
    """Return every non-empty table of a run."""
    lines = split_lines(frame)
    fits = fitted_panels(lines, scaled_columns(frame))
    tables = run_tables(Estimates(frame, samples), lines, fits)
    return [sheet for section in tables.values() for sheet in section if len(sheet)]
