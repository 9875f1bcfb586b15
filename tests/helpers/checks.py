"""Small things that many tests say."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """The value; fails where it is None, which stands for what is not known."""
    assert value is not None
    return value
