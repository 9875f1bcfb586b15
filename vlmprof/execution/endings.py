"""Reasons why a process sent no result: an exception, a signal or a timeout."""

from __future__ import annotations

import signal

from vlmprof.errors import first_line
from vlmprof.execution.processes import Ended
from vlmprof.measure import oom
from vlmprof.records import Status

LAST_LINES = 4
"""Lines of a process's output to search for the cause of its death; it survived what earlier lines report."""


def how_it_ended(
    ended: Ended, at: str, kills_before: int | None, timeout_s: float | None
) -> tuple[Status, str]:
    """Return the status and message for a process that ended without a result.

    `at` describes what it was doing, with a leading space, or is empty; `kills_before` is the value of
    `oom.system_oom_kills` before the process started.
    """
    if ended.timed_out:
        return Status.TIMEOUT, f"stopped after {timeout_s:g} s{at}"
    if ended.error or ended.user_error:
        return Status.ERROR, ended.error or ended.user_error or ""
    code = ended.exit_code or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        kills = oom.system_oom_kills()
        if kills is None or kills != kills_before:
            return Status.OOM, f"killed by the system's out-of-memory killer{at}"
        return Status.ERROR, f"its process was killed (SIGKILL) from outside{at}"
    last_lines = ended.last_words.splitlines()[-LAST_LINES:]
    if oom.says_out_of_memory("\n".join(last_lines)):
        last = first_line(last_lines[-1])
        return Status.OOM, f"{last} ({name}{at})"
    return Status.ERROR, f"its process exited with {name}{at}"
