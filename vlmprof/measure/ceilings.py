"""Ceilings of this machine: the rates of a copy, a matrix product, attention and exp.

`device_ceilings` are the rates that rows are compared with; `cpu_ceilings` are for estimates on a CPU, which
has no data sheet. Rates are the best of several rounds of calls, repeated until two rounds reach the best, so
that load that comes and goes does not lower them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.measure.clocks import make_current
from vlmprof.measure.stopping import Settling

SETTLE_S = 0.3
"""Shortest warm-up before an accelerator's ceiling is measured, because idle clocks are low."""
LONGEST_SETTLE_S = 2.0
"""Longest warm-up, and the time in all after which rounds no longer repeat."""
MEASURE_S = 0.3
"""Shortest time of all rounds together."""
ESTIMATE_MEASURE_S = 0.15
"""The same for the many ceilings of an estimate."""
ROUNDS = 3
"""Fewest rounds of calls."""
AGREE_SHARE = 0.02
"""The best calls of the two best rounds may differ by this share."""
COPY_BYTES = 1 << 27
CACHED_BYTES = 1 << 22
"""The size of a working tensor of the scans."""
SIDE = 1024
INT4_ROWS = 64
"""Few, because the product of float32 with int4 takes hundreds of times as long as others."""
ACCELERATOR_COPY_BYTES = 1 << 30
ACCELERATOR_SIDE = 8192
ATTENDED = (1, 8, 1024, 64)
"""(batch, heads, tokens, head size) of the timed attention."""


@dataclass(frozen=True)
class Ceilings:
    """Rates reached by single operations on the CPU."""

    dtype: str
    bandwidth_bytes_per_s: float
    """Reads and writes together."""
    cache_bytes_per_s: float
    """The same for tensors that fit in the last-level cache."""
    matmul_flops_per_s: float
    attention_flops_per_s: float
    special_functions_per_s: float
    call_s: float
    """Time of an operation on one element: the overhead of a call."""


Product = Callable[[Tensor, Tensor], object]


@torch.inference_mode()
def device_ceilings(
    device: str, dtypes: Sequence[str], products: Sequence[Product] = (torch.matmul,)
) -> dict[str, dict[str, float]]:
    """Measure `copy_ceiling_bytes_per_s` and `matmul_ceiling_flops_per_s` of `device`, by dtype.

    The latter is the best of `products`, each of two square matrices. Needs 2 GiB on an accelerator or
    256 MiB on a CPU; raises torch's out-of-memory error if there is less.
    """
    where = torch.device(device)
    make_current(where)
    on_cpu = where.type == "cpu"
    finish = (lambda: None) if on_cpu else torch.accelerator.synchronize
    moved_bytes, side = (COPY_BYTES, SIDE) if on_cpu else (ACCELERATOR_COPY_BYTES, ACCELERATOR_SIDE)
    source = torch.ones(moved_bytes, dtype=torch.int8, device=where)
    target = torch.empty_like(source)
    copy_s = sustained_s(lambda: (target.copy_(source), finish()), not on_cpu)
    ceilings = {}
    for dtype in dtypes:
        a, b = (torch.rand(side, side, device=where).to(getattr(torch, dtype)) for _ in range(2))
        matmul_s = min(
            sustained_s(lambda p=product, a=a, b=b: (p(a, b), finish()), not on_cpu)  # type: ignore[misc]
            for product in products
        )
        ceilings[dtype] = {
            "copy_ceiling_bytes_per_s": 2 * moved_bytes / copy_s,
            "matmul_ceiling_flops_per_s": 2 * side**3 / matmul_s,
        }
    return ceilings


@torch.inference_mode()
def cpu_ceilings(dtype: torch.dtype) -> Ceilings:
    """Measure the ceilings of the CPU with torch's current number of threads."""
    best = partial(sustained_s, measure_s=ESTIMATE_MEASURE_S)
    source = torch.ones(COPY_BYTES // 4, dtype=torch.float32)
    target = torch.empty_like(source)
    small = torch.empty(CACHED_BYTES // 4, dtype=torch.float32)
    a, b = (torch.rand(SIDE, SIDE).to(dtype) for _ in range(2))
    q = torch.rand(ATTENDED).to(dtype)
    batch, heads, tokens, head = ATTENDED
    values = torch.rand(1 << 20, dtype=torch.float32)
    one = torch.ones(1)
    return Ceilings(
        dtype=str(dtype).removeprefix("torch."),
        bandwidth_bytes_per_s=2 * COPY_BYTES / best(lambda: target.copy_(source)),
        cache_bytes_per_s=2 * CACHED_BYTES / best(lambda: small.copy_(source[: CACHED_BYTES // 4])),
        matmul_flops_per_s=2 * SIDE**3 / best(lambda: a @ b),
        attention_flops_per_s=4 * batch * heads * tokens**2 * head
        / best(lambda: F.scaled_dot_product_attention(q, q, q)),
        special_functions_per_s=values.numel() / best(lambda: values.exp()),
        call_s=best(lambda: [one.add(1) for _ in range(1000)]) / 1000,
    )  # fmt: skip


@torch.inference_mode()
def int8_flops_per_s() -> float:
    """Measure the rate of an int8 product on the CPU, of a transposed matrix as in a linear layer."""
    ones = torch.ones(SIDE, SIDE, dtype=torch.int8)
    return 2 * SIDE**3 / sustained_s(lambda: torch._int_mm(ones, ones.t()), measure_s=ESTIMATE_MEASURE_S)


@torch.inference_mode()
def int4_flops_per_s(dtype: torch.dtype) -> float:
    """Measure the rate of a product of activations in a dtype with a matrix of int4 on the CPU."""
    group = 128
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.ones(SIDE, SIDE, dtype=torch.int32), 1)
    scales = torch.ones(SIDE // group, SIDE, 2, dtype=dtype)
    given = torch.ones(INT4_ROWS, SIDE, dtype=dtype)
    product = torch.ops.aten._weight_int4pack_mm_for_cpu
    work_s = sustained_s(lambda: product(given, packed, group, scales), measure_s=ESTIMATE_MEASURE_S)
    return 2 * INT4_ROWS * SIDE**2 / work_s


def sustained_s(work: Callable[[], object], settle: bool = False, measure_s: float = MEASURE_S) -> float:
    """Return the duration of the shortest call in at least `ROUNDS` rounds of calls.

    Rounds repeat until the best two agree, for up to `LONGEST_SETTLE_S`. With `settle`, calls first warm up
    until they are stable, for between `SETTLE_S` and `LONGEST_SETTLE_S`.
    """
    times = [_call_s(work)]
    if settle:
        settling = Settling(budget_s=LONGEST_SETTLE_S)
        while sum(times[1:]) < SETTLE_S or not settling.enough(times):
            times.append(_call_s(work))
    spent_s, measured_s = sum(times[1:]), 0.0
    best: list[float] = []
    while measured_s < measure_s or not (_agree(best) or spent_s + measured_s >= LONGEST_SETTLE_S):
        times = []
        while sum(times) < measure_s / ROUNDS:
            times.append(_call_s(work))
        measured_s += sum(times)
        best.append(min(times))
    return min(best)


def _agree(best: Sequence[float]) -> bool:
    """Return whether two rounds reached the best call."""
    first, second = sorted(best)[:2] if len(best) > 1 else (0.0, 1.0)
    return second <= first * (1 + AGREE_SHARE)


def _call_s(work: Callable[[], object]) -> float:
    begin = perf_counter()
    work()
    return perf_counter() - begin
