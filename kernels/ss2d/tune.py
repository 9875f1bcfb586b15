"""Tuning of SS2D's launches at the shapes of an image, before anything is measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from vlmprof.kernels.backends import why_not_triton
from vlmprof.kernels.bench import samples_of
from vlmprof.kernels.ss2d.fused import ss2d_fused
from vlmprof.kernels.tuning import Shape, Timer, Tuned, tune
from vlmprof.kernels.verify import ss2d_case

SECONDS = 0.05
"""Measuring time of a candidate."""


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
    run: Callable[..., object] = ss2d_fused
    batch, height, width, d_inner = shape
    kind = Shape(d_inner, dt_rank, d_state, dtype, batch * height * width)

    def median_s(call: Callable[[], object]) -> float:
        return statistics.median(samples_of(call, x.device, SECONDS))

    with torch.inference_mode():
        return tune(
            kind,
            x.device,
            lambda tiles: run(x, *parameters, tiles=tiles),
            timer or median_s,
        )
