"""Memory limits, to simulate devices with less memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlmprof.errors import UserError
from vlmprof.units import show_bytes

if TYPE_CHECKING:
    import torch


def check_memory_limit(limit_bytes: int, device_type: str, device_memory_bytes: int | None) -> None:
    """Raise `UserError` if a limit cannot be enforced on this device."""
    if device_type == "cpu" and not sys.platform.startswith("linux"):
        raise UserError("memory_limit on a CPU requires Linux, which accounts for private memory")
    if device_type not in ("cpu", "cuda"):
        raise UserError(f"memory_limit is not available on {device_type}")
    if device_memory_bytes is not None and limit_bytes > device_memory_bytes:
        here = show_bytes(device_memory_bytes)
        raise UserError(f"memory_limit {show_bytes(limit_bytes)} is more than the {here} of the device")


def limit_memory(limit_bytes: int, device: torch.device) -> None:
    """Limit the memory of this process to `limit_bytes`.

    On a GPU, this limits the caching allocator's share of the device. On a CPU, it limits the growth of the
    process's private writable memory (RLIMIT_DATA, setrlimit(2)) beyond that of the interpreter and its
    libraries at the time of the call; shared libraries and file mappings do not count.
    """
    import torch

    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        # unlike other functions, this one does not accept `cuda` for the current device
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), index)
        return
    import resource

    # stacks of the thread pool belong to the libraries, so it must start before memory is counted
    torch.ones(2**16).sum()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    held_bytes = int(status.split("VmData:")[1].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held_bytes + limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
