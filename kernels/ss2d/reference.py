"""SS2D in plain PyTorch: cross-scan, projections, selective scan, cross-merge. The oracle.

Source: Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), sections 4.2 and 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype
from vlmprof.kernels.cross_scan.reference import cross_merge_reference, cross_scan_reference
from vlmprof.kernels.selective_scan.arguments import ScanArguments
from vlmprof.kernels.selective_scan.reference import selective_scan_reference
from vlmprof.kernels.ss2d.parameters import Parameters


def ss2d_reference(x: Tensor, parameters: Parameters) -> Tensor:
    """Compute `ss2d`: x (batch, height, width, d_inner), a floating dtype -> the same shape and dtype.

    The projections run in the dtype of x. Scan and merge are float32, or float64 for float64 input.
    """
    batch, height, width, d_inner = x.shape
    dt_rank, d_state = parameters.dt_rank, parameters.d_state
    dtype = compute_dtype(x.dtype)

    xs = cross_scan_reference(x.permute(0, 3, 1, 2))
    projected = torch.einsum("bkdl,kcd->bkcl", xs, parameters.x_proj_weight.to(x.dtype))
    dts, B, C = projected.split((dt_rank, d_state, d_state), dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dts, parameters.dt_projs_weight.to(x.dtype))
    A, bias = -torch.exp(parameters.A_logs.to(dtype)), parameters.dt_projs_bias.flatten()
    scan = ScanArguments(delta.flatten(1, 2), A, B, C, parameters.Ds, bias, delta_softplus=True)
    ys = selective_scan_reference(xs.flatten(1, 2).to(dtype), scan)
    merged = cross_merge_reference(ys.view(batch, 4, d_inner, height * width), height, width)
    return merged.permute(0, 2, 3, 1).to(x.dtype).contiguous()
