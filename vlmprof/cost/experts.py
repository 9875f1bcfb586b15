"""Routed experts: which of them a call reads, and what their products cost.

A router decides by values, which tensors without data lack. Routing is taken to be uniform and independent
between tokens: each takes k different ones of E experts, all choices equally likely. n tokens then read

    E · (1 − (1 − k/E)ⁿ)

experts on average: k for one token, nearly all for a long prefill. FLOPs depend on no choice, for every token
meets k experts. A trained router is less even, so it reads at most about as many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmprof.cost.costs import Kind, OpCost
from vlmprof.cost.formulas import dtype_name, tensors_in, touched_bytes

TOP_K = torch.ops.aten.topk.default


@dataclass(frozen=True)
class Routing:
    """`tokens` tokens, each sent to `chosen` of `experts` experts."""

    tokens: int
    chosen: int
    experts: int

    @property
    def read(self) -> float:
        """How many different experts are read, on average."""
        return self.experts * (1 - (1 - self.chosen / self.experts) ** self.tokens)

    @property
    def assumption(self) -> str:
        """For a person, what was assumed."""
        return (
            f"routing assumed uniform: {self.tokens:,} {'token' if self.tokens == 1 else 'tokens'}, each to "
            f"{self.chosen} of {self.experts} experts, read E·(1 − (1 − k/E)^n) = {self.read:.4g} of them"
        )

    def choices(self, shape: torch.Size) -> Tensor:
        """Experts by token on the host, of a `topk`'s shape: as many different ones as are read on average,
        rounded, spread over all and equally often."""
        used = max(self.chosen, round(self.read))
        turns = torch.arange(math.prod(shape)).remainder_(used)
        return turns.mul_(self.experts).div_(used, rounding_mode="floor").reshape(shape)

    def tokens_per_expert(self) -> Tensor:
        """How often `choices` names each expert, on the host."""
        chosen = self.choices(torch.Size((self.tokens, self.chosen)))
        return torch.bincount(chosen.flatten(), minlength=self.experts)


def routing_of(scores: Tensor, chosen: int) -> Routing:
    """What `topk` over the last dimension of these scores decides, if that is an expert each."""
    experts = scores.shape[-1]
    return Routing(tokens=scores.numel() // experts, chosen=chosen, experts=experts)


def is_grouped_product(func: Any) -> bool:
    """Whether an operator multiplies groups of rows by a matrix each."""
    return func.namespace in ("aten", "transformers") and func.overloadpacket.__name__ in _GROUPED


_GROUPED = ("_grouped_mm", "grouped_mm_fallback")


def grouped_output(a: Tensor, b: Tensor, offs: Tensor | None = None, **options: Any) -> Tensor:
    """The output of a grouped product on `meta`, whose own kernel takes bfloat16 alone.

    (rows, k) × (groups, k, n) has the groups along its rows, (groups, m, k) × (k, columns) along its columns,
    (m, k) × (k, n) along k; of two times three dimensions every group has its own product.
    """
    size: tuple[int, ...] = (a.shape[-2], b.shape[-1])
    if a.dim() == b.dim():
        groups = a.shape[0] if a.dim() == 3 else 1 if offs is None else offs.numel()
        size = (groups, *size)
    return a.new_empty(size, dtype=options.get("out_dtype") or a.dtype)


def grouped_cost(output: Tensor, a: Tensor, b: Tensor, routings: Sequence[Routing]) -> OpCost:
    """2·rows·k·n FLOPs: each row meets one matrix. Of the matrices, those that are read.

    `routings` are the choices made before, the latest last. The one that fits says how many choices belong
    to a token; where none fits, each row is taken to choose for itself.
    """
    each = output[0] if a.dim() == b.dim() == 2 else output
    flops = 2 * each.numel() * a.shape[-1]
    moved = touched_bytes(tensors_in((a, output)))
    if not (a.dim() == 2 and b.dim() == 3):
        return OpCost(Kind.MATMUL, dtype_name(a), flops=flops, moved_bytes=moved + touched_bytes([b]))
    rows, experts = a.shape[0], b.shape[0]
    fitting = [r for r in routings if r.experts == experts and r.tokens * r.chosen == rows]
    routing = fitting[-1] if fitting else Routing(tokens=rows, chosen=1, experts=experts)
    matrix_bytes = b[0].numel() * b.element_size()
    read_bytes = round(routing.read * matrix_bytes)
    return OpCost(
        Kind.MATMUL,
        dtype_name(a),
        flops=flops,
        moved_bytes=moved + read_bytes,
        unread_bytes=experts * matrix_bytes - read_bytes,
        assumed=routing.assumption,
    )
