"""The width of text, without a canvas."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath


@lru_cache(maxsize=4096)
def text_width_pt(text: str, font_pt: float) -> float:
    """Return the width of a text in points in the default font, without interpreting `$` as math."""
    plain = text.replace("$", r"\$")
    return float(TextPath((0, 0), plain, prop=FontProperties(size=font_pt)).get_extents().width)
