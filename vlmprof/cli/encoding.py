"""Standard output and error in an encoding that lacks some of our characters: similar ones stand in."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

SIMILAR = {
    "²": "^2", "×": "x", "±": "+-", "·": ".", "…": "...", "–": "-", "—": "-", "−": "-", "µ": "u", "μ": "u",
    "√": "sqrt ", "≤": "<=", "≥": ">=", "≈": "~", "∞": "inf", "→": "->", "∙": ".", "●": "*", "▶": ">",
    "█": "#", "─": "-", "━": "-", "│": "|", "°": " deg", "σ": "sigma", "ρ": "rho", "′": "'", "″": '"',
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
ERRORS = "vlmprof.similar"


def print_any_text() -> None:
    """Let both streams take any text; what their encoding lacks is written as something similar."""
    codecs.register_error(ERRORS, _similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def _similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_replacement(character, error.encoding) for character in lacking), error.end


def _replacement(character: str, encoding: str) -> str:
    for candidate in (SIMILAR.get(character, ""), unicodedata.normalize("NFKD", character)):
        plain = "".join(part for part in candidate if not unicodedata.combining(part))
        try:
            plain.encode(encoding)
        except UnicodeEncodeError:
            continue
        if plain:
            return plain
    return "?"
