"""Selective scan in vectorized PyTorch, in segments of bounded size: the `torch` backend.

Source: as in `reference`; the recurrence is `scan_chunks_`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.common.backends import LOG2_E, compute_dtype
from vlmprof.kernels.selective_scan.arguments import ScanArguments
from vlmprof.kernels.selective_scan.chunked import CHUNK_STEPS, scan_chunks_

SEGMENT_ELEMENTS = 1 << 19
"""Elements of a temporary tensor: several of them fit in a CPU's last-level cache."""

DEVICE_SEGMENT_ELEMENTS = 1 << 25
"""The same on an accelerator, where call overhead matters more than the cache."""

MOST_EXPONENT = 120.0
"""Largest exponent of 2 in `softplus_`: float32 overflows at 128, and above 25 softplus is linear."""


def chunks_per_segment(chunks: int, elements_per_position: int, device: torch.device) -> int:
    """Return the chunks per segment, for equal segments that bound the size of a temporary tensor."""
    elements = SEGMENT_ELEMENTS if device.type == "cpu" else DEVICE_SEGMENT_ELEMENTS
    most = max(1, elements // (elements_per_position * CHUNK_STEPS))
    return -(-chunks // -(-chunks // most))


def softplus_(x: Tensor, scratch: Tensor) -> Tensor:
    """Compute log(1 + 2^x), the softplus of x · ln 2, in place; overwrites `scratch`, of the size of x.

    In CPU builds of torch, `log1p`, and with it `softplus`, may be ten times slower than `log`.
    With e = 2^x and u = 1 + e rounded, log(1 + e) = log(u) + (e - (u - 1)) / u, where the second term
    restores the rounding error, which is all of e if u is 1. exp2 is several times faster than exp.
    Other devices use torch's softplus, because inspecting x would synchronize.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.ops.aten.softplus.out(x, math.log(2.0), 20, out=x).mul_(math.log(2.0))
    linear = None
    if not float(x.amax()) < MOST_EXPONENT:
        linear = x * math.log(2.0)  # equals the result there to the last digit
        x.clamp_(max=MOST_EXPONENT)
    torch.add(x.exp2_(), 1, out=scratch)
    x.sub_(scratch.sub_(1))
    x.div_(scratch.add_(1))
    x.add_(scratch.log_())
    return x if linear is None else torch.maximum(x, linear, out=x)


def selective_scan_vectorized(u: Tensor, scan: ScanArguments) -> Tensor:
    """Compute `selective_scan`: u (batch, d_inner, L) -> the same shape and dtype.

    The state is float32, or float64 for float64 input; y is rounded once to the dtype of u.
    """
    delta, A, B, C, D, delta_bias, delta_softplus = scan
    batch, d_inner, length = u.shape
    groups, d_state = B.shape[1:3]
    dtype = compute_dtype(u.dtype)
    grouped = (groups, d_inner // groups)
    A2 = (A.to(dtype) * LOG2_E).view(*grouped, d_state)
    bias = A2.new_zeros(grouped) if delta_bias is None else delta_bias.to(dtype).view(grouped)
    if delta_softplus:
        bias = bias * LOG2_E
    skip = None if D is None else D.to(dtype).view(grouped)

    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    states = [A2.new_zeros(batch, *grouped) for _ in range(d_state)]
    step = chunks_per_segment(-(-length // CHUNK_STEPS), batch * d_inner, u.device) * CHUNK_STEPS
    for start in range(0, length, step):
        here = slice(start, min(start + step, length))
        x = _chunk_layout(u[:, :, here].unflatten(1, grouped), dtype)
        increment = _chunk_layout(delta[:, :, here].unflatten(1, grouped), dtype)
        b_in = _chunk_layout(B[..., here].unsqueeze(3), dtype)
        c_out = _chunk_layout(C[..., here].unsqueeze(3), dtype)
        drive = torch.empty_like(increment)
        if delta_softplus:
            torch.add(bias, increment, alpha=LOG2_E, out=increment)
            softplus_(increment, drive)
        else:
            increment += bias
        _clear_tail(increment, here.stop - start)
        torch.mul(increment, x, out=drive)
        out = torch.zeros_like(x) if skip is None else x * skip
        for n in range(d_state):
            decay = torch.exp2(increment * A2[..., n])
            state = drive * b_in[:, :, :, :, n]
            states[n] = scan_chunks_(decay, state, states[n], reverse=False)
            out.addcmul_(state, c_out[:, :, :, :, n])
        _write_sequence(y[:, :, here].unflatten(1, grouped), out)
    return y


def _chunk_layout(sequence: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert (batch, groups, *rest, length) to (steps, chunks, batch, groups, *rest), zero-padded."""
    length = sequence.shape[-1]
    padding = -length % CHUNK_STEPS
    padded = F.pad(sequence, (0, padding)) if padding else sequence
    chunked = padded.unflatten(-1, (-1, CHUNK_STEPS))
    return torch.movedim(chunked, (-1, -2), (0, 1)).to(
        dtype, memory_format=torch.contiguous_format, copy=True
    )


def _write_sequence(sequence: Tensor, chunked: Tensor) -> None:
    """Invert `_chunk_layout`, writing into (batch, groups, channels, length)."""
    steps, length = chunked.shape[0], sequence.shape[-1]
    ordered = torch.movedim(chunked, (0, 1), (-1, -2))
    whole = length // steps
    sequence[..., : whole * steps].unflatten(-1, (whole, steps)).copy_(ordered[..., :whole, :])
    if length % steps:
        sequence[..., whole * steps :] = ordered[..., whole, : length % steps]


def _clear_tail(step: Tensor, length: int) -> None:
    """Set step sizes beyond `length` to 0, so that the padding does not change the state."""
    tail = step.shape[0] * step.shape[1] - length
    if tail:
        step[-tail:, -1] = 0
