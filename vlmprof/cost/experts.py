"""Mixture-of-experts layers: how many experts a call reads, and the cost of the experts' products.

A router decides by the values of its input, which tensors on `meta` do not have. Routing is assumed to be
uniform and independent between tokens: each token is sent to k of E experts, all choices being equally
likely. An expert receives none of n tokens with probability (1 − k/E)ⁿ, so that on average

    E · (1 − (1 − k/E)ⁿ)

experts are read: k for one token, nearly all for a long prefill. FLOPs do not depend on the routing, because
every token is sent to k experts. A trained router is less uniform, and reads about as many experts or fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmprof.cost.costs import Kind, OpCost
from vlmprof.cost.formulas import dtype_name, tensors_in, touched_bytes

TOP_K = torch.ops.aten.topk.default


@dataclass(frozen=True)
class Routing:
    """The assumed routing of `tokens` tokens, each to `chosen` of `experts` experts."""

    tokens: int
    chosen: int
    experts: int

    @property
    def read(self) -> float:
        """The average number of experts that receive at least one token."""
        return self.experts * (1 - (1 - self.chosen / self.experts) ** self.tokens)

    @property
    def assumption(self) -> str:
        """The assumption as a sentence."""
        return (
            f"routing assumed uniform: {self.tokens:,} {'token' if self.tokens == 1 else 'tokens'}, each to "
            f"{self.chosen} of {self.experts} experts, read E·(1 − (1 − k/E)^n) = {self.read:.4g} of them"
        )

    def choices(self, shape: torch.Size) -> Tensor:
        """Return expert indices on the host, in the shape of the output of `topk`. The average number of
        experts is chosen, rounded, all equally often and evenly spaced over all experts."""
        used = max(self.chosen, round(self.read))
        turns = torch.arange(math.prod(shape)).remainder_(used)
        return turns.mul_(self.experts).div_(used, rounding_mode="floor").reshape(shape)

    def tokens_per_expert(self) -> Tensor:
        """Return how often `choices` contains each expert, on the host, shape (experts,)."""
        chosen = self.choices(torch.Size((self.tokens, self.chosen)))
        return torch.bincount(chosen.flatten(), minlength=self.experts)


def routing_of(scores: Tensor, chosen: int) -> Routing:
    """Return the routing of `topk` over scores of shape (…, experts)."""
    experts = scores.shape[-1]
    return Routing(tokens=scores.numel() // experts, chosen=chosen, experts=experts)


def grouped_cost(output: Tensor, a: Tensor, b: Tensor, routings: Sequence[Routing]) -> OpCost:
    """Return the cost of a grouped product: 2·rows·k·n FLOPs, since each row is multiplied by one matrix.

    Only matrices of experts with tokens are read. `routings` are all earlier ones, in order; the last one
    that matches the shapes gives the number of experts per token. Without a match, each row is a token.
    """
    each = output[0] if a.dim() == b.dim() == 2 else output
    flops = 2 * each.numel() * a.shape[-1]
    moved = touched_bytes(tensors_in((a, output)))
    if not (a.dim() == 2 and b.dim() == 3):
        return OpCost(Kind.MATMUL, dtype_name(a), flops=flops, moved_bytes=moved + touched_bytes([b]))
    rows, experts = a.shape[0], b.shape[0]
    fitting = [r for r in routings if r.experts == experts and r.tokens * r.chosen == rows]
    routing = fitting[-1] if fitting else Routing(tokens=rows, chosen=1, experts=experts)
    matrix_bytes = b[0].nbytes
    read_bytes = round(routing.read * matrix_bytes)
    return OpCost(
        Kind.MATMUL,
        dtype_name(a),
        flops=flops,
        moved_bytes=moved + read_bytes,
        unread_bytes=experts * matrix_bytes - read_bytes,
        assumed=routing.assumption,
    )
