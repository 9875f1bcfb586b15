"""How wide a text is, without a canvas to draw it on."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath


@lru_cache(maxsize=4096)
def text_width_pt(text: str, font_pt: float) -> float:
    """Width of the text's outlines in points, in the default font; dollar signs are no mathematics."""
    plain = text.replace("$", r"\$")
    return float(TextPath((0, 0), plain, prop=FontProperties(size=font_pt)).get_extents().width)
