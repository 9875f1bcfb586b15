"""Reading what a process writes to a pseudo-terminal."""

from __future__ import annotations

import os


def read_to_end(descriptor: int) -> bytes:
    """Read until the other end of a pseudo-terminal is closed; close this one."""
    shown = b""
    try:
        while part := os.read(descriptor, 65536):
            shown += part
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(descriptor)
    return shown
