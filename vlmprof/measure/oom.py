"""Detection of out-of-memory errors from any library."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path

_ENDS = r"(?=\s*$|\s*[.,:;!?()\]'\"`]|\s*\n| (?:trying|tried|while|when|at|on|in|during|for|to)\b)"
"""What may follow such a phrase: not the `-mapped` of memory-mapped, nor the next word of a longer name."""
SIGNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![-\w])out of memory{_ENDS}",  # CUDA's allocator, a launch, a library's own workspace
        rf"(?:can't|cannot|could not|failed to|unable to) allocate memory{_ENDS}",  # torch on a CPU, ENOMEM
        r"(?:cannot|could not|failed to|unable to) allocate (?:\S+ ){0,3}?[\d.]+ ?(?:bytes|[KMGT]i?B)\b",
        rf"not enough memory{_ENDS}",  # torch's CPU allocator on Windows
        r"\bstd::bad_alloc\b",
        r"_ALLOC_FAILED\b",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
        r"could not create a memory(?: object|\s*$)",  # oneDNN
    )
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or an exception it was raised `from`, reports out of memory.

    An implicit `__context__` does not count.
    """
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
        current = current.__cause__
    return False


def says_out_of_memory(text: str) -> bool:
    """Return whether a message, or the last output of a process, reports out of memory."""
    return any(sign.search(text) for sign in SIGNS)


def system_oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has ended so far, system-wide or in this cgroup.

    None if the system does not report it.
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
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        group = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "")
    return Path("/sys/fs/cgroup") / group.strip("/") / "memory.events"
