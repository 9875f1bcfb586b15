"""Flushing of the device's caches, for iterations with a cold cache."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

DEFAULT_CPU_BYTES = 64 * 2**20
"""Assumed last-level cache size if the system does not report it."""

DEFAULT_DEVICE_BYTES = 128 * 2**20
"""The same for an accelerator: an H200 has 60 MB, the largest current GPU 126 MB."""


def last_level_cache_bytes(device: torch.device) -> int:
    """Return the size of the largest cache between the device's cores and its memory."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    if device.type != "cpu":
        return DEFAULT_DEVICE_BYTES
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError, KeyError):
            text = path.read_text().strip()
            sizes.append(int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]])
    return max(sizes, default=DEFAULT_CPU_BYTES)


class CacheFlush:
    """Evicts the device's caches when called, by writing twice their size."""

    def __init__(self, device: torch.device) -> None:
        self.filler = torch.empty(2 * last_level_cache_bytes(device), dtype=torch.uint8, device=device)

    def __call__(self) -> None:
        self.filler.zero_()
