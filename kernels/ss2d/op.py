"""`ss2d`: checks, choice of backend, and the registered operator."""

from __future__ import annotations

from torch import Tensor

from vlmprof.kernels.common.backends import Backend, records_grad, resolve_backend
from vlmprof.kernels.common.checks import check_dims, check_tensors
from vlmprof.kernels.common.direct import has_passed, passed, signature
from vlmprof.kernels.common.operators import like_the_first, operator, under_autocast
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.ss2d.reference import ss2d_reference
from vlmprof.kernels.ss2d.vectorized import ss2d_vectorized


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Run the core of VMamba's SS2D block: cross-scan, projections, selective scan, cross-merge.

    Args:
        x: (batch, height, width, d_inner), channels last, the activation after the depthwise
            convolution and SiLU; bfloat16, float16, float32 or float64.
        x_proj_weight: (4, dt_rank + 2 · d_state, d_inner), used in the dtype of x.
        dt_projs_weight: (4, d_inner, dt_rank), used in the dtype of x.
        dt_projs_bias: (4, d_inner), used in float32.
        A_logs: (4 · d_inner, d_state), used in float32; A = −exp(A_logs).
        Ds: (4 · d_inner), used in float32; the skip, added once per direction.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        The sum over the four directions, with the shape of x, before the output norm. It is merged in
        float32 (float64 for float64 input) and rounded once to the dtype of x.

    Raises:
        ValueError: a shape or device does not fit, or the backend is unknown.
        TypeError: a dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or an input requires grad and the backend is
            not "reference".

    Example:
        >>> import torch
        >>> d_inner, dt_rank, d_state = 8, 2, 1
        >>> x = torch.randn(1, 14, 14, d_inner)
        >>> y = ss2d(
        ...     x,
        ...     x_proj_weight=torch.randn(4, dt_rank + 2 * d_state, d_inner),
        ...     dt_projs_weight=torch.randn(4, d_inner, dt_rank),
        ...     dt_projs_bias=torch.zeros(4, d_inner),
        ...     A_logs=torch.zeros(4 * d_inner, d_state),
        ...     Ds=torch.ones(4 * d_inner),
        ... )
        >>> y.shape
        torch.Size([1, 14, 14, 8])

    Source: Liu et al., "VMamba" (arXiv 2401.10166), sections 4.2 and 4.3; parameter shapes as in the
    published checkpoints. Directions: 0 rows, 1 columns, 2 rows reversed, 3 columns reversed.
    """
    x = under_autocast(x)
    parameters = Parameters(x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    signed = signature("ss2d", x, *parameters, backend)
    if has_passed(signed):
        return _ss2d_op.direct(x, parameters, "triton")
    check_tensors("ss2d", {"x": x, **parameters._asdict()})
    check_dims("ss2d", "x", x, 4, "(batch, height, width, d_inner)")
    parameters.check("ss2d", x)
    chosen = resolve_backend("ss2d", x.device, backend)
    if records_grad("ss2d", chosen, x, *parameters):
        return ss2d_reference(x, parameters)
    y = _ss2d_op(x, *parameters, chosen)
    if chosen == "triton":
        passed(signed, x, *parameters)
    return y


@operator("ss2d", Parameters, fake=like_the_first)
def _ss2d_op(x: Tensor, parameters: Parameters, backend: str) -> Tensor:
    if backend == "reference":
        return ss2d_reference(x, parameters)
    if backend == "torch":
        return ss2d_vectorized(x, parameters)
    from vlmprof.kernels.ss2d.fused import ss2d_fused

    return ss2d_fused(x, parameters)
