"""`selective_scan`: checks, choice of backend, and the registered operator."""

from __future__ import annotations

from torch import Tensor

from vlmprof.kernels.common.backends import Backend, records_grad, resolve_backend
from vlmprof.kernels.common.checks import check_dims, check_tensors
from vlmprof.kernels.common.operators import like_the_first, operator
from vlmprof.kernels.selective_scan.arguments import ScanArguments
from vlmprof.kernels.selective_scan.reference import selective_scan_reference
from vlmprof.kernels.selective_scan.vectorized import selective_scan_vectorized


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Run Mamba's selective scan h_l = exp(delta_l A) h_(l-1) + delta_l B_l u_l;  y_l = <C_l, h_l> + D u_l.

    Args:
        u, delta: (batch, d_inner, L), bfloat16, float16, float32 or float64.
        A: (d_inner, d_state), negative for a state that decays.
        B, C: (batch, groups, d_state, L), or (batch, d_state, L) for one group. Group g is used by
            channels [g · d_inner / groups, (g + 1) · d_inner / groups).
        D, delta_bias: (d_inner), or None.
        delta_softplus: apply softplus, with threshold 20, to delta + delta_bias.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        y, with the shape and dtype of u. States are float32 (float64 for float64 input).

    Raises:
        ValueError: a shape or device does not fit, or the backend is unknown.
        TypeError: a dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            not "reference".

    Example:
        >>> import torch
        >>> batch, d_inner, d_state, length = 1, 4, 2, 10
        >>> u, delta = torch.randn(2, batch, d_inner, length)
        >>> A = -torch.rand(d_inner, d_state)
        >>> B, C = torch.randn(2, batch, d_state, length)
        >>> selective_scan(u, delta, A, B, C, delta_softplus=True).shape
        torch.Size([1, 4, 10])

    Source: Gu & Dao, "Mamba" (arXiv 2312.00752), algorithm 2; shapes as in `mamba_ssm`.
    """
    check_tensors(
        "selective_scan",
        {"u": u, "delta": delta, "A": A, "B": B, "C": C},
        {"D": D, "delta_bias": delta_bias},
    )
    check_dims("selective_scan", "u", u, 3, "(batch, d_inner, L)")
    if B.dim() == 3:
        B = B.unsqueeze(1)
    if C.dim() == 3:
        C = C.unsqueeze(1)
    scan = ScanArguments(delta, A, B, C, D, delta_bias, delta_softplus)
    scan.check("selective_scan", u)
    chosen = resolve_backend("selective_scan", u.device, backend)
    if records_grad("selective_scan", chosen, u, *(member for member in scan if isinstance(member, Tensor))):
        return selective_scan_reference(u, scan)
    return _selective_scan_op(u, *scan, chosen)


@operator("selective_scan", ScanArguments, fake=like_the_first)
def _selective_scan_op(u: Tensor, scan: ScanArguments, backend: str) -> Tensor:
    if backend == "reference":
        return selective_scan_reference(u, scan)
    if backend == "torch":
        return selective_scan_vectorized(u, scan)
    from vlmprof.kernels.selective_scan.fused import selective_scan_fused

    return selective_scan_fused(u, scan)
