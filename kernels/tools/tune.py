"""Tuning of launch parameters for given shapes: of SS2D, and of a block's matrix products.

Tuning happens only on request, never in a call of a kernel. For SS2D, it chooses the number of tiles per
chunk, which is an argument of the kernels rather than a constant, so that candidates need no compilation.
For a product, it chooses one of at most six tiles, each of which is compiled once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from vlmprof.kernels.block.arguments import LinearArguments
from vlmprof.kernels.block.fused_linear import linear_fused, plan
from vlmprof.kernels.block.linear_tiles import Product, by_rule, candidates
from vlmprof.kernels.common.backends import why_not_triton
from vlmprof.kernels.common.tuning_cache import Shape, keep_choice
from vlmprof.kernels.ss2d.chunks import POSITIONS
from vlmprof.kernels.ss2d.fused import ss2d_fused
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.tools.block_cases import BlockProduct, product_case
from vlmprof.kernels.tools.cases import ss2d_case
from vlmprof.kernels.tools.timing import samples_of

SECONDS = 0.05
"""Measuring time per candidate."""

CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Candidate tiles per chunk."""

NOISE = 1.02
"""A tile replaces that of the rule if it is faster by more than this factor."""

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
    seconds = {tiles: timer(partial(run, tiles)) for tiles in CANDIDATES if tiles <= most}
    best = min(seconds, key=seconds.__getitem__)
    keep_choice(shape, device, best)
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
    _need_triton(device)
    case = ss2d_case("tuning", dtype, device, shape, dt_rank, d_state)
    x, *parameters = case.arguments
    kind = Shape(shape[3], dt_rank, d_state, dtype, math.prod(shape[:3]))
    run = partial(ss2d_fused, x, Parameters(*parameters))
    with torch.inference_mode():
        return tune(kind, x.device, run, timer or partial(_median_s, x.device))


@dataclass(frozen=True)
class TunedProduct:
    """The result of tuning one product."""

    tile: str
    seconds: dict[str, float]
    """Duration by candidate."""


def tune_linear(
    product: BlockProduct, rows: int, dtype: torch.dtype, device: torch.device, timer: Timer | None = None
) -> TunedProduct:
    """Time a product of `rows` random rows with each of its tiles and store the fastest on disk.

    `timer` and the exceptions are those of `tune_ss2d`, and OSError if the cache is not writable.
    """
    _need_triton(device)
    case = product_case("tuning", dtype, device, rows, product).cast(dtype)
    x, *norm, weight, bias = case.arguments
    norm_weight, norm_bias = norm or (None, None)
    arguments = LinearArguments(norm_weight, norm_bias, weight, bias, **case.options, eps=1e-5)
    shape = Product(rows, product.depth, product.features, product.normed, product.residual, dtype)
    offered = candidates(shape, x.device)
    timer = timer or partial(_median_s, x.device)
    with torch.inference_mode():
        seconds = [timer(partial(linear_fused, x, arguments, tile)) for tile in offered]
    best = seconds.index(min(seconds))
    usual = offered.index(by_rule(shape)) if by_rule(shape) in offered else best
    if seconds[usual] <= NOISE * seconds[best]:
        best = usual
    keep_choice(shape, x.device, best + 1)
    plan.cache_clear()
    return TunedProduct(
        offered[best].label(), {tile.label(): s for tile, s in zip(offered, seconds, strict=True)}
    )


def _need_triton(device: torch.device) -> None:
    reason = why_not_triton(device)
    if reason is not None:
        raise RuntimeError(f"tuning needs the triton backend: {reason}")


def _median_s(device: torch.device, call: Callable[[], object]) -> float:
    return statistics.median(samples_of(call, device, SECONDS))
