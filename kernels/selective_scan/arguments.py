"""The arguments of `selective_scan` after u, with their checks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vlmprof.kernels.common.checks import check_dims, check_shape


class ScanArguments(NamedTuple):
    """The arguments for u (batch, d_inner, L), in any floating dtype."""

    delta: Tensor
    """(batch, d_inner, L)."""
    A: Tensor
    """(d_inner, d_state)."""
    B: Tensor
    """(batch, groups, d_state, L)."""
    C: Tensor
    """(batch, groups, d_state, L)."""
    D: Tensor | None
    """(d_inner), or None for 0."""
    delta_bias: Tensor | None
    """(d_inner), or None for 0."""
    delta_softplus: bool
    """Whether to apply softplus to delta + delta_bias."""

    def check(self, op: str, u: Tensor) -> None:
        """Check the arguments for u. Raises ValueError or TypeError."""
        batch, d_inner, length = u.shape
        check_shape(op, "delta", self.delta, u.shape, "(batch, d_inner, L) like u")
        check_dims(op, "A", self.A, 2, "(d_inner, d_state)")
        d_state = self.A.shape[1]
        check_shape(op, "A", self.A, (d_inner, d_state), "(d_inner, d_state)")
        check_dims(op, "B", self.B, 4, "(batch, groups, d_state, L) or (batch, d_state, L)")
        groups = self.B.shape[1]
        if d_inner % groups:
            raise ValueError(f"{op}: {d_inner} channels cannot be divided evenly among {groups} groups of B")
        check_shape(op, "B", self.B, (batch, groups, d_state, length), "(batch, groups, d_state, L)")
        check_shape(op, "C", self.C, self.B.shape, "(batch, groups, d_state, L) like B")
        check_shape(op, "D", self.D, (d_inner,), "(d_inner)")
        check_shape(op, "delta_bias", self.delta_bias, (d_inner,), "(d_inner)")
