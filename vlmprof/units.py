"""Conversion between human-readable units and the stored SI and binary units."""

from __future__ import annotations

import re

from vlmprof.errors import UserError

GIB = 2**30
"""Bytes per GiB, the unit of memory in all figures."""

MOST_BYTES = 2**60
LONGEST_S = 366 * 24 * 3600.0

_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": GIB, "tib": 2**40,
}  # fmt: skip
_BYTES_SHOWN = (("GiB", float(GIB)), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_SECONDS_SHOWN = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9), ("ps", 1e-12))
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_bytes(text: str | int, option: str = "") -> int:
    """Parse `24GiB`, `512 MiB` or `16GB` (10⁹) to bytes. Raises `UserError`, also for a missing unit."""
    value = _parse(text, _BYTES, "a memory size", "24GiB or 512MiB", option)
    if value > MOST_BYTES:
        raise UserError(f"{_head(option)}{text!r} is more than any device has; write it like 24GiB or 512MiB")
    return round(value)


def parse_seconds(text: str | float, option: str = "") -> float:
    """Parse `200ms`, `90s`, `1.5min` or `2h` to seconds. Raises `UserError`, also for a missing unit."""
    value = _parse(text, _SECONDS, "a duration", "200ms, 90s or 10min", option)
    if value > LONGEST_S:
        raise UserError(f"{_head(option)}{text!r} is longer than a year; write it like 90s or 10min")
    return value


def parse_joules(text: str, option: str = "") -> float:
    """Parse `20J` or `500mJ` to joules. Raises `UserError`, also for a missing unit."""
    return _parse(text, {"mj": 1e-3, "j": 1.0, "kj": 1e3}, "an energy", "20J or 500mJ", option)


def parse_percent(text: str, option: str) -> float:
    """Parse `5%` to 0.05. Raises `UserError` that names the `option`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise UserError(f"{option} {text!r} is not a percentage; write it like 5%")
    return float(match[1]) / 100


def _parse(
    text: str | float, units: dict[str, float] | dict[str, int], what: str, like: str, option: str
) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*", str(text))
    if match is not None and not match[2]:
        raise UserError(f"{_head(option)}{text!r} lacks a unit; write it like {like}")
    if match is None or match[2].lower() not in units or float(match[1]) <= 0:
        raise UserError(f"{_head(option)}{text!r} is not {what}; write it like {like}")
    return float(match[1]) * units[match[2].lower()]


def _head(option: str) -> str:
    return f"{option}: " if option else ""


def bytes_unit(largest: float) -> tuple[str, float]:
    """Return the unit best suited to byte counts up to `largest`, and its size in bytes."""
    return next((pair for pair in _BYTES_SHOWN if largest >= pair[1]), _BYTES_SHOWN[-1])


def seconds_unit(largest: float) -> tuple[str, float]:
    """Return the unit best suited to latencies up to `largest` seconds, and its size in seconds."""
    return next((pair for pair in _SECONDS_SHOWN if largest >= pair[1]), _SECONDS_SHOWN[-1])


def show_bytes(count: float) -> str:
    """Format a byte count with three digits: `512 MiB`, `13.3 GiB`."""
    return _shown(count, *bytes_unit(count))


def show_seconds(seconds: float) -> str:
    """Format a latency with three digits: `1.95 ms`, `22.9 s`."""
    return _shown(seconds, *seconds_unit(seconds)) if seconds else "0 s"


def show_resolution(resolution: object) -> str:
    """Format a resolution: `512²`, `1333×800` (width by height, in pixels)."""
    width, _, height = str(resolution).partition("x")
    return f"{width}×{height}" if height and height != width else f"{width}²"


def counted(count: int, noun: str) -> str:
    """Format a number of things: `1 cell`, `32 cells`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def show_frames(count: float) -> str:
    """Format a number of frames: `1 frame`, `32 frames`."""
    return counted(int(count), "frame")


def _shown(value: float, unit: str, size: float) -> str:
    return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:.0f} {unit}"


def show_duration(seconds: float) -> str:
    """Format a duration: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
