"""Makes Python look like that of a Mac with Apple's GPU to vlmprof; found by way of PYTHONPATH.

There is no /proc and no Triton, psutil cannot read the clock, resident sizes are counted in bytes, and torch
has an accelerator but not oneDNN. Libraries that choose code by system are imported before, as on Linux.
"""

import collections
import multiprocessing.popen_spawn_posix  # noqa: F401
import os
import pathlib
import resource
import sys
from types import SimpleNamespace
from typing import Any

sys.modules["triton"] = None  # type: ignore[assignment]

import matplotlib  # noqa: E402, F401
import numpy  # noqa: E402, F401
import pandas  # noqa: E402, F401
import psutil  # noqa: E402
import torch  # noqa: E402

sys.platform = "darwin"


def _without_linux(function: Any) -> Any:
    def called(path: Any, *args: Any, **named: Any) -> Any:
        if str(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *args, **named)

    return called


for _name in ("read_text", "write_text", "glob"):
    setattr(pathlib.Path, _name, _without_linux(getattr(pathlib.Path, _name)))
os.readlink = _without_linux(os.readlink)
del os.sched_getaffinity

_kibibytes = resource.getrusage
resource.getrusage = lambda who: SimpleNamespace(ru_maxrss=_kibibytes(who).ru_maxrss * 1024)  # type: ignore[assignment, return-value]

_Times = collections.namedtuple("_Times", "user nice system idle")
_times = psutil.cpu_times


def _no_clock() -> None:
    raise SystemError("<built-in function cpu_freq> returned a result with an exception set")


def _cpu_times() -> _Times:
    times = _times()
    return _Times(times.user, times.nice, times.system, times.idle + times.iowait)


psutil.cpu_freq = _no_clock  # type: ignore[assignment]
psutil.cpu_times = _cpu_times  # type: ignore[assignment]

torch.backends.mkldnn.is_available = lambda: False  # type: ignore[attr-defined]
torch.accelerator.is_available = lambda: True
torch.accelerator.current_accelerator = lambda *args: torch.device("mps")  # type: ignore[assignment]
