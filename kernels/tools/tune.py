"""Tuning of SS2D's launch parameters for given shapes.

Tuning happens only on request, never in a call of a kernel. It chooses the number of tiles per chunk, which
is an argument of the kernels rather than a constant, so that candidates need no compilation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlmprof.kernels.common.backends import why_not_triton
from vlmprof.kernels.common.tuning_cache import Shape, keep_tiles
from vlmprof.kernels.ss2d.chunks import POSITIONS
from vlmprof.kernels.ss2d.fused import ss2d_fused
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.tools.cases import ss2d_case
from vlmprof.kernels.tools.timing import samples_of

SECONDS = 0.05
"""Measuring time per candidate."""

CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Candidate tiles per chunk."""

Timer = Callable[[Callable[[], object]], float]
"""Returns the duration of one call in seconds."""


@dataclass(frozen=True)
class Tuned:
    """The result of tuning one shape."""

    tiles: int
    seconds: dict[int, float]
    """Duration by candidate."""


def tune(shape: Shape, device: torch.device, run: Callable[[int], object], timer: Timer) -> Tuned:
    """Time `run(tiles)` for each candidate and store the fastest on disk.

    The candidates are `CANDIDATES`, up to one chunk for the whole sequence. `timer` includes a warm-up.
    Raises OSError if the cache is not writable.
    """
    most = -(-shape.positions // POSITIONS)
    seconds = {t: timer(lambda t=t: run(t)) for t in CANDIDATES if t <= most}  # type: ignore[misc]
    best = min(seconds, key=seconds.__getitem__)
    keep_tiles(shape, device, best)
    return Tuned(best, seconds)


def tune_ss2d(
    shape: tuple[int, int, int, int],
    dt_rank: int,
    d_state: int,
    dtype: torch.dtype,
    device: torch.device,
    timer: Timer | None = None,
) -> Tuned:
    """Tune `ss2d` for x of `shape` (batch, height, width, d_inner) on `device`, with random values.

    `timer` returns the seconds of a call; by default, the median over `SECONDS` after a warm-up.
    Raises RuntimeError if the `triton` backend cannot run.
    """
    reason = why_not_triton(device)
    if reason is not None:
        raise RuntimeError(f"tuning needs the triton backend: {reason}")
    case = ss2d_case("tuning", shape, dt_rank, d_state, dtype, device)
    x, *parameters = (argument for argument in case.arguments if argument is not None)
    batch, height, width, d_inner = shape
    kind = Shape(d_inner, dt_rank, d_state, dtype, batch * height * width)

    def median_s(call: Callable[[], object]) -> float:
        return statistics.median(samples_of(call, x.device, SECONDS))

    with torch.inference_mode():
        return tune(
            kind,
            x.device,
            lambda tiles: ss2d_fused(x, Parameters(*parameters), tiles),
            timer or median_s,
        )
