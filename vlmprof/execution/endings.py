"""Why a process sent no result: an exception, a signal or a timeout."""

from __future__ import annotations

import signal

from vlmprof.errors import first_line
from vlmprof.execution.processes import Ended
from vlmprof.measure import oom
from vlmprof.records import Status

LAST_LINES = 4
"""How much of what a process printed tells why it died: what came earlier it has survived."""


def how_it_ended(
    ended: Ended, at: str, kills_before: int | None, timeout_s: float | None
) -> tuple[Status, str]:
    """The status and message for a process that ended without a result.

    `at` says what it was doing, with a leading space, or is empty; `kills_before` is what
    `oom.system_oom_kills` returned before the process started.
    """
    if ended.timed_out:
        return Status.TIMEOUT, f"longer than {timeout_s:g} s, stopped{at}"
    if ended.error or ended.user_error:
        return Status.ERROR, ended.error or ended.user_error or ""
    code = ended.exit_code or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        kills = oom.system_oom_kills()
        if kills is None or kills != kills_before:
            return Status.OOM, f"killed by the system for want of memory{at}"
        return Status.ERROR, f"its process was killed (SIGKILL) from outside{at}"
    last_lines = ended.last_words.splitlines()[-LAST_LINES:]
    if oom.says_out_of_memory("\n".join(last_lines)):
        last = first_line(last_lines[-1])
        return Status.OOM, f"{last} ({name}{at})"
    return Status.ERROR, f"its process ended with {name}{at}"
