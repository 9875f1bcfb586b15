"""Verification of every operation against its float64 reference, on every available backend.

A backend passes if its error is at most `MULTIPLE` times the error of the plain code in the same dtype, where
errors below an eighth of the dtype's epsilon count as that eighth. The plain code of a block's operation is
its `torch` backend, which passes if its own error is at most `PLAIN_EPSILONS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import triton_interpreted, why_not_triton
from vlmprof.kernels.tools.block_cases import BLOCK_OPERATIONS
from vlmprof.kernels.tools.case import Case
from vlmprof.kernels.tools.cases import large_cases, medium_cases, small_cases

MULTIPLE = 4.0

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

PLAIN_EPSILONS = {torch.float32: 16.0, torch.bfloat16: 2.0, torch.float16: 2.0}
"""In epsilons of the dtype. float32 has room for sums of thousands of terms, one after the other; in 16 bits,
products are summed in float32, and each of a few results is rounded."""


@dataclass(frozen=True)
class Comparison:
    """One backend to run on one case, whose tensors are still on the CPU."""

    case: Case
    dtype: torch.dtype
    backend: str

    def labels(self) -> dict[str, str]:
        """The labels of the row."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"op": self.case.op, "case": self.case.name, "dtype": dtype, "backend": self.backend}

    def verdict(self, device: torch.device) -> Verdict:
        """Run the comparison on `device`. Errors of the backend propagate."""
        return verify_case(self.case.on(device), self.dtype, self.backend)


@dataclass(frozen=True)
class Verdict:
    """The result of one backend on one case. Errors are ‖y − y64‖ / ‖y64‖ with y64 from float64."""

    op: str
    case: str
    dtype: str
    backend: str
    relative_error: float
    plain_relative_error: float
    limit: float
    deterministic: bool | None
    """Whether two runs agree bit for bit; None after a single run."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit and two runs did not differ. NaN does not pass."""
        return self.deterministic is not False and self.relative_error <= self.limit


def available_backends(device: torch.device) -> list[str]:
    """Return the backends, other than the reference, that run on `device`."""
    return ["torch"] if why_not_triton(device) else ["torch", "triton"]


def verify_case(case: Case, dtype: torch.dtype, backend: str, twice: bool = True) -> Verdict:
    """Run one backend, `twice` or once, on one case and compare it with float64 and with the plain code."""
    of_block = case.op in BLOCK_OPERATIONS
    with torch.inference_mode():
        truth = case.cast(torch.float64).run("reference")
        # the plain code is the `torch` backend of a block's operation, and else the reference
        plain = _error(case.run("torch" if of_block else "reference"), truth)
        first = case.run(backend)
        repeats = torch.equal(first, case.run(backend)) if twice else None
    epsilon = torch.finfo(dtype).eps
    return Verdict(
        op=case.op,
        case=case.name,
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        relative_error=_error(first, truth),
        plain_relative_error=plain,
        limit=PLAIN_EPSILONS[dtype] * epsilon
        if of_block and backend == "torch"
        else MULTIPLE * max(plain, epsilon / 8),
        deterministic=repeats,
    )


def comparisons(
    device: torch.device, backends: Sequence[str], dtypes: Sequence[torch.dtype], op: str | None = None
) -> Iterator[Comparison]:
    """Yield each case with each dtype and backend, for one operation or all: small cases in the interpreter,
    all cases on a GPU."""
    sizes = [small_cases]
    if not ("triton" in backends and triton_interpreted()):
        sizes.append(medium_cases)
    if device.type == "cuda":
        sizes.append(large_cases)
    for dtype in dtypes:
        for make in sizes:
            for case in make(dtype, torch.device("cpu")):
                if op in (None, case.op):
                    yield from (Comparison(case, dtype, backend) for backend in backends)


def _error(y: Tensor, truth: Tensor) -> float:
    size = truth.norm().item()
    error = (y.double() - truth).norm().item()
    return error / size if size else (0.0 if error == 0.0 else math.inf)
