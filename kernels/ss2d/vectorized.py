"""SS2D in vectorised PyTorch, segment by segment: the `torch` backend, made for a CPU.

x_proj acts on one pixel at a time, so it commutes with the four readings and is one matrix product.
Rows and columns are read through views of a channels-last image and the reversed directions run the
same positions backwards: no tensor with four directions of d_inner channels is ever written, and
the working tensors of a segment stay in the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from vlmprof.kernels.backends import LOG2_E, compute_dtype
from vlmprof.kernels.selective_scan.chunked import CHUNK_STEPS, scan_chunks_
from vlmprof.kernels.selective_scan.vectorized import chunks_per_segment


def ss2d_vectorized(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """Shapes as in `ss2d`."""
    _, height, width, d_inner = x.shape
    dtype = compute_dtype(x.dtype)
    projected = F.linear(x, x_proj_weight.to(x.dtype).flatten(0, 1)).unflatten(-1, (4, -1))
    A2 = (A_logs.to(dtype).exp() * -LOG2_E).view(4, d_inner, -1)
    dt_weight = dt_projs_weight.to(x.dtype).to(dtype)
    dt_bias = dt_projs_bias.to(dtype)

    skip = Ds.to(dtype).view(4, d_inner)

    scanned = []
    for orientation, columns in enumerate((False, True)):
        pixels = _by_position(x, columns, dtype)
        y = pixels * (skip[orientation] + skip[orientation + 2])
        for k in (orientation, orientation + 2):
            parameters = _by_position(projected[..., k, :], columns, dtype)
            _scan_direction_(y, pixels, parameters, dt_weight[k], dt_bias[k], A2[k], reverse=k >= 2)
        scanned.append(y.flatten(0, 1)[: height * width].movedim(1, 0))
    by_rows = scanned[0].unflatten(1, (height, width))
    by_columns = scanned[1].unflatten(1, (width, height))
    return (by_rows + by_columns.transpose(1, 2)).to(x.dtype, memory_format=torch.contiguous_format)


def _by_position(image: Tensor, columns: bool, dtype: torch.dtype) -> Tensor:
    """(batch, height, width, channels) -> (chunks, steps, batch, channels) in order of the scan.

    A view where it can be one. The tail of the last chunk is 0, so a scan that starts there keeps its
    state at 0.
    """
    if columns:
        image = image.transpose(1, 2)
    positions = image.flatten(1, 2).movedim(0, 1).to(dtype)
    padding = -positions.shape[0] % CHUNK_STEPS
    if padding:
        positions = F.pad(positions, (0, 0, 0, 0, 0, padding))
    return positions.unflatten(0, (-1, CHUNK_STEPS))


def _scan_direction_(
    y: Tensor,
    pixels: Tensor,
    parameters: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A2: Tensor,
    reverse: bool,
) -> None:
    """Add one direction's scan to y, in place.

    y, pixels: (chunks, steps, batch, d_inner); parameters: (chunks, steps, batch, dt_rank + 2 d_state);
    dt_weight (d_inner, dt_rank), dt_bias (d_inner), A2 (d_inner, d_state) = A · log2(e).
    """
    chunks, _, batch, d_inner = pixels.shape
    dt_rank, d_state = dt_weight.shape[1], A2.shape[1]
    states = [A2.new_zeros(batch, d_inner) for _ in range(d_state)]
    per_segment = chunks_per_segment(chunks, batch * d_inner)
    starts = range(0, chunks, per_segment)
    for start in reversed(starts) if reverse else starts:
        here = slice(start, start + per_segment)
        x = pixels[here].transpose(0, 1)
        out = y[here].transpose(0, 1)
        dts, B, C = parameters[here].transpose(0, 1).split((dt_rank, d_state, d_state), dim=-1)
        step = torch.addmm(dt_bias, dts.reshape(-1, dt_rank), dt_weight.t()).view(x.shape)
        torch.ops.aten.softplus.out(step, 1, 20, out=step)
        drive = step * x
        for n in range(d_state):
            last = n == d_state - 1
            state = drive.mul_(B[..., n, None]) if last else drive * B[..., n, None]
            decay = torch.mul(step, A2[:, n], out=step) if last else step * A2[:, n]
            states[n] = scan_chunks_(decay.exp2_(), state, states[n], reverse)
            out.addcmul_(state, C[..., n, None])
