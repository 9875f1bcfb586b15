"""Telling that memory ran out, wherever it ran out."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

SIGNS = (
    "out of memory",  # CUDA's allocator, a launch, a library's own workspace
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",  # the C library's words for ENOMEM
    "not enough memory",  # torch's CPU allocator on Windows
    "std::bad_alloc",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "failed to allocate",
    "could not allocate",
    "could not create a memory",  # oneDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, says that memory ran out on the device or the host."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, MemoryError) or type(current).__name__ == "OutOfMemoryError":
            return True
        if isinstance(current, OSError) and current.errno == errno.ENOMEM:
            return True
        if isinstance(current, RuntimeError) and says_out_of_memory(str(current)):
            return True
        current = current.__cause__ or current.__context__
    return False


def says_out_of_memory(text: str) -> bool:
    """Whether a message, or the last words of a process, speak of memory running out."""
    lowered = text.lower()
    return any(sign in lowered for sign in SIGNS)


def system_oom_kills() -> int | None:
    """How many processes the kernel has killed for memory so far, here or in this control group.

    None where the system does not say.
    """
    counts = []
    for source in (Path("/proc/vmstat"), _cgroup_events()):
        with suppress(OSError, ValueError, StopIteration):
            lines = source.read_text().splitlines()
            counts.append(next(int(line.split()[1]) for line in lines if line.startswith("oom_kill ")))
    return sum(counts) if counts else None


def _cgroup_events() -> Path:
    group = ""
    with suppress(OSError, IndexError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "")
    return Path("/sys/fs/cgroup") / group.strip("/") / "memory.events"
