"""Reasons why a process sent no result: an exception, a signal or a timeout."""

from __future__ import annotations

import re
import signal

from vlmprof.errors import first_line
from vlmprof.execution.processes import Ended
from vlmprof.measure import oom
from vlmprof.records import Status
from vlmprof.units import parse_bytes, show_bytes

LAST_LINES = 4
"""Lines of a process's output to search for the cause of its death; it survived what earlier lines report."""

_ASKED = re.compile(
    r"(?:tried to allocate|cannot allocate|failed to allocate|unable to allocate)\s+(?:\S+ ){0,2}?"
    r"([\d.]+)\s*(bytes|B|[KMGT]i?B)\b",
    re.IGNORECASE,
)
_FREE = re.compile(r"of which ([\d.]+ [KMGT]iB) is free")


def how_it_ended(
    ended: Ended,
    at: str,
    kills_before: int | None,
    timeout_s: float | None,
    limit_bytes: int | None = None,
) -> tuple[Status, str]:
    """Return the status and message for a process that ended without a result.

    `at` describes what it was doing, with a leading space, or is empty; `kills_before` is the value of
    `oom.system_oom_kills` before the process started. `limit_bytes` is the limit on its memory, if any.
    """
    if ended.timed_out:
        return Status.TIMEOUT, f"stopped after {timeout_s:g} s{at}"
    if ended.server_died:
        return Status.ERROR, f"the fork server that its process belonged to died{at}"
    if ended.error or ended.user_error:
        return Status.ERROR, ended.error or ended.user_error or ""
    code = ended.exit_code or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        kills = oom.system_oom_kills()
        if kills is None:
            return Status.OOM, f"killed (SIGKILL), probably because the system ran out of memory{at}"
        if kills != kills_before:
            return Status.OOM, f"killed by the system's out-of-memory killer{at}"
        return Status.ERROR, f"its process was killed (SIGKILL) from outside{at}"
    last_lines = ended.last_words.splitlines()[-LAST_LINES:]
    if oom.says_out_of_memory("\n".join(last_lines)):
        last = in_plain_words("\n".join(last_lines[-1:]), limit_bytes)
        return Status.OOM, f"{last} ({name}{at})"
    return Status.ERROR, f"its process exited with {name}{at}"


def in_plain_words(message: str, limit_bytes: int | None = None) -> str:
    """Say what an out-of-memory message asked for: `needed 96 MiB more under a limit of 200 MiB`.

    Returns the first line of the message if it does not say how much was needed.
    """
    asked = _ASKED.search(message)
    if asked is None:
        return first_line(message)
    unit = "b" if asked[2].lower() == "bytes" else asked[2]
    needed = f"needed {show_bytes(parse_bytes(f'{asked[1]}{unit}'))} more"
    if limit_bytes is not None:
        return f"{needed} under a limit of {show_bytes(limit_bytes)}"
    free = _FREE.search(message)
    return f"{needed} with {free[1]} free" if free else f"{needed} than is free"
