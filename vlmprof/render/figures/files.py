"""Writing figures to files, reproducibly byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from vlmprof.errors import check_known, writing
from vlmprof.files import replacing

FORMATS = ("png", "pdf", "svg")


def check_formats(formats: Sequence[str]) -> None:
    """Raise `UserError` for an unknown format."""
    check_known("figure format", formats, FORMATS)


def save_figure(
    figure: Figure, folder: Path, stem: str, formats: Sequence[str], dpi: int = 300
) -> list[Path]:
    """Write a figure in each format, with embedded fonts and no date; return the paths.

    Raises `UserError` for an unknown format or a folder that is not writable.
    """
    check_formats(formats)
    paths = [folder / f"{stem}.{name}" for name in formats]
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    reproducible = mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "vlmprof"})
    with writing(f"the figure to {folder}"), reproducible:
        folder.mkdir(parents=True, exist_ok=True)
        _lay_out(figure, dpi)
        for path, name in zip(paths, formats, strict=True):
            with replacing(path) as draft:
                figure.savefig(draft, format=name, dpi=dpi, metadata=undated[name])
    return paths


def _lay_out(figure: Figure, dpi: int) -> None:
    """Lay a figure out once for all formats. Matplotlib would for each, in a drawing that it discards."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine(None)
