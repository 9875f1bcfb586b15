"""`cross_scan` and `cross_merge`: checks, choice of backend, and the registered operators."""

from __future__ import annotations

from torch import Tensor

from vlmprof.kernels.common.backends import Backend, records_grad, resolve_backend
from vlmprof.kernels.common.checks import check_dims, check_shape, check_tensors
from vlmprof.kernels.common.operators import operator
from vlmprof.kernels.cross_scan.reference import cross_merge_reference, cross_scan_reference
from vlmprof.kernels.cross_scan.vectorized import cross_merge_vectorized, cross_scan_vectorized


def cross_scan(x: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Read an image in four directions: rows, columns, rows reversed, columns reversed.

    Args:
        x: (batch, d_inner, height, width), any floating dtype.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        (batch, 4, d_inner, height · width), contiguous, in the dtype of x.

    Raises:
        ValueError: the shape does not fit, or the backend is unknown.
        TypeError: the dtype is not supported; "triton" does not take float64.
        RuntimeError: the backend cannot run on this device, or x requires grad and the backend is not
            "reference".

    Example:
        >>> import torch
        >>> x = torch.arange(6.0).view(1, 1, 2, 3)
        >>> cross_scan(x)[0, :, 0].int().tolist()
        [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]

    Source: Liu et al., "VMamba" (arXiv 2401.10166), section 4.3.
    """
    check_tensors("cross_scan", {"x": x})
    check_dims("cross_scan", "x", x, 4, "(batch, d_inner, height, width)")
    chosen = resolve_backend("cross_scan", x.device, backend)
    if records_grad("cross_scan", chosen, x):
        return cross_scan_reference(x)
    return _cross_scan_op(x, chosen)


def cross_merge(ys: Tensor, height: int, width: int, *, backend: Backend = "auto") -> Tensor:
    """Put four scans back in place and sum them: the adjoint of `cross_scan`.

    Args:
        ys: (batch, 4, d_inner, height · width), any floating dtype.
        height, width: size of the image in pixels.
        backend: one of `BACKENDS`; see `resolve_backend`.

    Returns:
        (batch, d_inner, height, width), contiguous, summed in float32 (float64 for float64) and
        rounded once to the dtype of ys.

    Raises:
        ValueError, TypeError, RuntimeError: as in `cross_scan`.

    Example:
        >>> import torch
        >>> x = torch.randn(1, 2, 4, 6)
        >>> torch.equal(cross_merge(cross_scan(x), 4, 6), 4 * x)
        True

    Source: Liu et al., "VMamba" (arXiv 2401.10166), section 4.3.
    """
    check_tensors("cross_merge", {"ys": ys})
    check_dims("cross_merge", "ys", ys, 4, "(batch, 4, d_inner, height · width)")
    if height < 1 or width < 1:
        raise ValueError(f"cross_merge: height and width must be at least 1, got {height} and {width}")
    shape = (ys.shape[0], 4, ys.shape[2], height * width)
    check_shape("cross_merge", "ys", ys, shape, "(batch, 4, d_inner, height · width)")
    chosen = resolve_backend("cross_merge", ys.device, backend)
    if records_grad("cross_merge", chosen, ys):
        return cross_merge_reference(ys, height, width)
    return _cross_merge_op(ys, height, width, chosen)


def _empty_scans(x: Tensor, backend: str) -> Tensor:
    batch, d_inner, height, width = x.shape
    return x.new_empty(batch, 4, d_inner, height * width)


@operator("cross_scan", fake=_empty_scans)
def _cross_scan_op(x: Tensor, backend: str) -> Tensor:
    if backend == "reference":
        return cross_scan_reference(x)
    if backend == "torch":
        return cross_scan_vectorized(x)
    from vlmprof.kernels.cross_scan.fused import cross_scan_fused

    return cross_scan_fused(x)


def _empty_image(ys: Tensor, height: int, width: int, backend: str) -> Tensor:
    return ys.new_empty(ys.shape[0], ys.shape[2], height, width)


@operator("cross_merge", fake=_empty_image)
def _cross_merge_op(ys: Tensor, height: int, width: int, backend: str) -> Tensor:
    if backend == "reference":
        return cross_merge_reference(ys, height, width).contiguous()
    if backend == "torch":
        return cross_merge_vectorized(ys, height, width)
    from vlmprof.kernels.cross_scan.fused import cross_merge_fused

    return cross_merge_fused(ys, height, width)
