"""Selective scan in plain PyTorch: the oracle for the other backends.

Source: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces"
(arXiv 2312.00752), equations 2a and 4 with the simplified discretisation of B (section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.common.backends import compute_dtype
from vlmprof.kernels.selective_scan.arguments import ScanArguments


def selective_scan_reference(u: Tensor, scan: ScanArguments) -> Tensor:
    """Compute h_l = exp(delta_l A) h_(l-1) + delta_l B_l u_l;  y_l = <C_l, h_l> + D u_l, step by step.

    The state is float32, or float64 for float64 input; y is rounded once to the dtype of u.
    """
    delta, A, B, C, D, delta_bias, delta_softplus = scan
    dtype = compute_dtype(u.dtype)
    channels_per_group = u.shape[1] // B.shape[1]
    x, step = u.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    A = A.to(dtype)
    B = B.to(dtype).repeat_interleave(channels_per_group, dim=1)
    C = C.to(dtype).repeat_interleave(channels_per_group, dim=1)

    state = x.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        decay = torch.exp(step[:, :, t, None] * A)
        state = decay * state + (step[:, :, t] * x[:, :, t])[..., None] * B[..., t]
        outputs.append((state * C[..., t]).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + x * D.to(dtype)[:, None]
    return y.to(u.dtype)
