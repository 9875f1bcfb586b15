"""The five parameters of an SS2D block, with shapes as in VMamba's checkpoints."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vlmprof.kernels.common.checks import check_dims, check_shape


class Parameters(NamedTuple):
    """The weights of `ss2d`, in any floating dtype.

    Directions: 0 rows, 1 columns, 2 rows reversed, 3 columns reversed.
    """

    x_proj_weight: Tensor
    """(4, dt_rank + 2 · d_state, d_inner): rows for the low-rank steps, B, then C."""
    dt_projs_weight: Tensor
    """(4, d_inner, dt_rank)."""
    dt_projs_bias: Tensor
    """(4, d_inner)."""
    A_logs: Tensor
    """(4 · d_inner, d_state); A = −exp(A_logs)."""
    Ds: Tensor
    """(4 · d_inner)."""

    @property
    def dt_rank(self) -> int:
        """Rank of the projection to step sizes."""
        return self.dt_projs_weight.shape[2]

    @property
    def d_state(self) -> int:
        """States per channel."""
        return self.A_logs.shape[1]

    def check(self, op: str, x: Tensor) -> None:
        """Check the shapes for x (batch, height, width, d_inner). Raises ValueError."""
        d_inner = x.shape[3]
        check_dims(op, "dt_projs_weight", self.dt_projs_weight, 3, "(4, d_inner, dt_rank)")
        check_dims(op, "A_logs", self.A_logs, 2, "(4 · d_inner, d_state)")
        expected = {
            "dt_projs_weight": ((4, d_inner, self.dt_rank), "(4, d_inner, dt_rank)"),
            "A_logs": ((4 * d_inner, self.d_state), "(4 · d_inner, d_state)"),
            "x_proj_weight": (
                (4, self.dt_rank + 2 * self.d_state, d_inner),
                "(4, dt_rank + 2 · d_state, d_inner)",
            ),
            "dt_projs_bias": ((4, d_inner), "(4, d_inner)"),
            "Ds": ((4 * d_inner,), "(4 · d_inner)"),
        }
        for name, (shape, meaning) in expected.items():
            check_shape(op, name, getattr(self, name), shape, meaning)
