"""torch.compile for one shape, in a short-lived process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

THREADS = "TORCHINDUCTOR_COMPILE_THREADS"


def compiled_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` for the shapes of its first call.

    The compiler starts no worker processes unless the environment sets `THREADS`: with them, torch 2.11 can
    take five minutes to exit.
    """
    if THREADS not in os.environ:
        import torch._inductor.config as inductor

        inductor.compile_threads = 1
    return torch.compile(function, dynamic=False)
