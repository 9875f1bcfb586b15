"""Peak memory: allocated and reserved by the caching allocator, resident size, and the driver's figure."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch


@dataclass(frozen=True)
class Peaks:
    """Peak memory since the last `MemoryMeter.reset`, or since the process started."""

    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    peak_rss_bytes: int | None

    def __or__(self, other: Peaks) -> Peaks:
        """Return the larger value of each field."""
        return Peaks(
            _higher(self.peak_allocated_bytes, other.peak_allocated_bytes),
            _higher(self.peak_reserved_bytes, other.peak_reserved_bytes),
            _higher(self.peak_rss_bytes, other.peak_rss_bytes),
        )


NO_PEAKS = Peaks(None, None, None)
"""Nothing was read."""


class MemoryMeter:
    """Reads and resets the high-water marks of this process and its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = None if device.type == "cpu" else device
        self._resets_rss = _reset_peak_rss()
        self.resets_between_stages = self._resets_rss or self._device is not None
        """Whether any high-water mark can be reset between stages."""

    def reset(self) -> None:
        """Return freed memory to the system, then reset the marks to current use."""
        if self._device is not None:
            torch.accelerator.reset_peak_memory_stats(self._device)
        _give_back_freed()
        _reset_peak_rss()

    def peaks(self) -> Peaks:
        """Return the current marks."""
        if self._device is None:
            return Peaks(None, None, peak_rss_bytes())
        return Peaks(
            torch.accelerator.max_memory_allocated(self._device),
            torch.accelerator.max_memory_reserved(self._device),
            peak_rss_bytes(),
        )

    def stage_peaks(self) -> Peaks:
        """Return the marks since `reset`, without those that this system cannot reset."""
        reached = self.peaks()
        return reached if self._resets_rss else replace(reached, peak_rss_bytes=None)


def rss_bytes() -> int:
    """Return the current resident size of this process."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int | None:
    """Return the peak resident size since the last reset (Linux) or since the start; None if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        # the BSDs and Linux count in KiB, macOS in bytes
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def nvml_process_bytes(device: torch.device) -> int | None:
    """Return this process's memory as the NVIDIA driver reports it: allocator, context and libraries.

    None without an NVIDIA driver, or if a container hides process ids.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return None
    ours = [p for p in processes if p.pid == os.getpid()] or (processes if len(processes) == 1 else [])
    return ours[0].usedGpuMemory if ours else None


def _give_back_freed() -> None:
    # only glibc caches freed memory and has this call
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak_rss() -> bool:
    # proc(5): writing 5 resets the high-water mark of the resident set
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _higher(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
