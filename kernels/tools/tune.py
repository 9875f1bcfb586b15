"""Tunes how SS2D is launched at given shapes.

Tuning happens only on request, never inside a call of a kernel. It chooses the number of tiles per chunk,
which is an argument of the kernels and not a constant, so that no candidate has to be compiled.
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
"""Measuring time of a candidate."""

CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Tiles per chunk that are tried."""

Timer = Callable[[Callable[[], object]], float]
"""Seconds that one call takes."""


@dataclass(frozen=True)
class Tuned:
    """What tuning one shape found."""

    tiles: int
    seconds: dict[int, float]
    """By candidate."""


def tune(shape: Shape, device: torch.device, run: Callable[[int], object], timer: Timer) -> Tuned:
    """Time `run(tiles)` for each candidate and store the fastest on disk.

    The candidates are `CANDIDATES`, at most one chunk for the whole sequence. `timer` warms up before it
    measures. Raises OSError when the cache cannot be written.
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
    """Tune `ss2d` for x of `shape` (batch, height, width, d_inner) on `device`, on random values.

    `timer` gives the seconds of a call; by default the median of `SECONDS` of device time after warm-up.
    Raises RuntimeError where the `triton` backend cannot run.
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
