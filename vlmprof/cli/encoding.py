"""Similar characters for output encodings that lack some of ours."""

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
    """Make standard output and error accept any text, replacing unsupported characters by similar ones."""
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
