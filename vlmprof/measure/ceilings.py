"""What this machine reaches on the simplest work of each kind: a copy, a matrix product, attention, exp.

For estimates on a device that no data sheet describes. Takes about a second; rates are the best of a few
tries, as a ceiling should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F

TRIES = 7
COPY_BYTES = 1 << 27
SIDE = 1024
ATTENDED = (1, 8, 1024, 64)
"""(batch, heads, tokens, head size) of the attention that is timed."""


@dataclass(frozen=True)
class Ceilings:
    """Rates reached by single operations on the CPU."""

    dtype: str
    bandwidth_bytes_per_s: float
    """Read and written together."""
    matmul_flops_per_s: float
    attention_flops_per_s: float
    special_functions_per_s: float
    call_s: float
    """Of an operation on one element: what a call costs that does nothing."""


@torch.inference_mode()
def cpu_ceilings(dtype: torch.dtype) -> Ceilings:
    """The ceilings of the CPU with the threads that torch is set to."""
    source = torch.ones(COPY_BYTES // 4, dtype=torch.float32)
    target = torch.empty_like(source)
    a, b = (torch.rand(SIDE, SIDE).to(dtype) for _ in range(2))
    q = torch.rand(ATTENDED).to(dtype)
    batch, heads, tokens, head = ATTENDED
    values = torch.rand(1 << 20, dtype=torch.float32)
    one = torch.ones(1)
    return Ceilings(
        dtype=str(dtype).removeprefix("torch."),
        bandwidth_bytes_per_s=2 * COPY_BYTES / _best_s(lambda: target.copy_(source)),
        matmul_flops_per_s=2 * SIDE**3 / _best_s(lambda: a @ b),
        attention_flops_per_s=4 * batch * heads * tokens**2 * head
        / _best_s(lambda: F.scaled_dot_product_attention(q, q, q)),
        special_functions_per_s=values.numel() / _best_s(lambda: values.exp()),
        call_s=_best_s(lambda: [one.add(1) for _ in range(1000)]) / 1000,
    )  # fmt: skip


def _best_s(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(TRIES):
        begin = perf_counter()
        work()
        times.append(perf_counter() - begin)
    return min(times)
