"""torch.compile for one shape, in a process that ends soon after."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

THREADS = "TORCHINDUCTOR_COMPILE_THREADS"


def compiled_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for the shapes of its first call, by this process alone unless `THREADS` says
    otherwise: with workers beside it, torch 2.11 can take five minutes to end a process."""
    if THREADS not in os.environ:
        import torch._inductor.config as inductor

        inductor.compile_threads = 1
    return torch.compile(function, dynamic=False)
