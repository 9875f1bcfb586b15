"""SS2D in vectorized PyTorch, segment by segment: the `torch` backend, designed for a CPU.

x_proj acts on each pixel independently, so it commutes with the four scan orders and is one matrix
product. An image line (a row or a column) is cut into pieces of a few steps. With the steps as the first
dimension, rows and columns are views of the same channels-last image, and the reversed directions run
through the same positions backwards. Therefore no position is copied, all directions add to one result,
and the only temporary tensors are the steps and states of a segment. They fit in the cache and are allocated
once, because page faults of new memory would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.kernels.block.plain import product
from vlmprof.kernels.common.backends import LOG2_E, compute_dtype
from vlmprof.kernels.common.parameter_cache import cached_from_parameters
from vlmprof.kernels.selective_scan.chunked import scan_chunks_
from vlmprof.kernels.selective_scan.vectorized import DEVICE_SEGMENT_ELEMENTS, softplus_
from vlmprof.kernels.ss2d.parameters import Parameters

STEPS = 16
"""Approximate steps of a piece. More steps give fewer, longer calls, until a slab exceeds the cache."""

SEGMENT_ELEMENTS = 1 << 20
"""Elements of each of the two temporary tensors, so that they fit in a CPU's last-level cache."""


@dataclass(frozen=True)
class Prepared:
    """Packed parameters of one SS2D; all but the first two are in the dtype of the scan."""

    x_proj: Tensor
    """(4 · (dt_rank + 1 + 2 d_state), d_inner), in the dtype of x: low-rank steps, zeros, B and C."""
    constants: Tensor
    """The bias of the product: 1 where x_proj has zeros, to be multiplied by the bias of dt_proj."""
    dt_weight: Tensor
    """(4, dt_rank + 1, d_inner): weights and bias, times log2(e)."""
    a2: Tensor
    """(4, d_state, d_inner), A · log2(e)."""
    skip: Tensor
    """(d_inner), the sum of Ds over the directions."""


def _prepare(dtype: torch.dtype, *tensors: Tensor) -> Prepared:
    parameters = Parameters(*tensors)
    d_inner, dt_rank = parameters.dt_projs_weight.shape[1], parameters.dt_rank
    wide = compute_dtype(dtype)
    dts, states = parameters.x_proj_weight.to(dtype).tensor_split((dt_rank,), dim=1)
    x_proj = torch.cat((dts, dts.new_zeros(4, 1, d_inner), states), dim=1)
    constants = x_proj.new_zeros(x_proj.shape[:2])
    constants[:, dt_rank] = 1
    dt_weight = parameters.dt_projs_weight.to(dtype).to(wide).transpose(1, 2)
    A = -parameters.A_logs.to(wide).exp().view(4, d_inner, -1).transpose(1, 2)
    return Prepared(
        x_proj=x_proj.flatten(0, 1),
        constants=constants.flatten(),
        dt_weight=torch.cat((dt_weight, parameters.dt_projs_bias.to(wide).unsqueeze(1)), dim=1) * LOG2_E,
        a2=(A * LOG2_E).contiguous(),
        skip=parameters.Ds.to(wide).view(4, d_inner).sum(0),
    )


def ss2d_vectorized(x: Tensor, parameters: Parameters) -> Tensor:
    """Compute `ss2d`: x (batch, height, width, d_inner), a floating dtype -> the same shape and dtype.

    The projections run in the dtype of x. Scan and merge are float32, or float64 for float64 input.
    """
    shape, d_inner = x.shape, x.shape[3]
    dtype = compute_dtype(x.dtype)
    x = x.contiguous()
    if 1 in shape[1:3]:
        x = x.view(shape[0], 1, -1, d_inner)  # rows and columns read the same sequence
    _, height, width, _ = x.shape
    steps_across, steps_down = steps_per_piece(width), steps_per_piece(height)
    tail_across, tail_down = -width % steps_across, -height % steps_down
    if tail_across or tail_down:
        x = F.pad(x, (0, 0, 0, tail_across, 0, tail_down))

    made = cached_from_parameters(_prepare, x.dtype, *parameters)
    projected = product(x, made.x_proj, made.constants).unflatten(-1, (4, -1)).to(dtype)
    y = x * made.skip
    for k in range(4):
        columns = k % 2 == 1 and shape[1] > 1 and shape[2] > 1
        steps, tail = (steps_down, tail_down) if columns else (steps_across, tail_across)
        pixels, out, low_rank_b_c = (
            _in_pieces(image, columns, steps) for image in (x, y, projected[..., k, :])
        )
        _scan_direction_(out, pixels, low_rank_b_c, made.dt_weight[k], made.a2[k], tail, reverse=k >= 2)
    return y[:, :height, :width].to(x.dtype).contiguous().view(shape)


def steps_per_piece(length: int) -> int:
    """Return the steps per piece of a line: near STEPS, with little padding of the last piece."""
    few = range(STEPS - 6, STEPS + 5)
    if length <= few[-1]:
        return length
    return min(few, key=lambda steps: (-length % steps, abs(steps - STEPS)))


def _in_pieces(image: Tensor, columns: bool, steps: int) -> Tensor:
    """View (batch, height, width, channels) as (steps, lines, pieces, batch, channels)."""
    lines = image.transpose(1, 2) if columns else image
    return lines.unflatten(2, (-1, steps)).permute(3, 1, 2, 0, 4)


def segment_elements(device: torch.device) -> int:
    """Return the largest number of elements of a temporary tensor on `device`."""
    return SEGMENT_ELEMENTS if device.type == "cpu" else DEVICE_SEGMENT_ELEMENTS


def _segments(
    lines: int, pieces: int, elements_per_piece: int, most_elements: int
) -> Iterator[tuple[slice, slice]]:
    """Yield equal ranges of whole lines, or of pieces of one line if a line exceeds `most_elements`."""
    most = max(1, most_elements // elements_per_piece)
    per_line = -(-pieces // -(-pieces // most))
    together = -(-lines // -(-lines // max(1, most // pieces)))
    for line in range(0, lines, together):
        for piece in range(0, pieces, per_line):
            yield slice(line, line + together), slice(piece, piece + per_line)


def _scan_direction_(
    y: Tensor, pixels: Tensor, projected: Tensor, dt_weight: Tensor, A2: Tensor, tail: int, reverse: bool
) -> None:
    """Add one direction's scan to y, in place.

    y, pixels: (steps, lines, pieces, batch, d_inner); projected: the same with `x_proj`'s channels;
    dt_weight (dt_rank + 1, d_inner), A2 (d_state, d_inner).
    The last `tail` steps of each line's last piece do not exist.
    """
    steps, lines, pieces, batch, d_inner = pixels.shape
    d_state = A2.shape[0]
    segments = list(_segments(lines, pieces, steps * batch * d_inner, segment_elements(y.device)))
    largest = pixels[:, segments[0][0], segments[0][1]]
    memory = A2.new_empty(2 if d_state == 1 else 4, largest.numel())
    states = [A2.new_zeros(batch, d_inner) for _ in range(d_state)]
    for line, piece in reversed(segments) if reverse else segments:
        x, out = pixels[:, line, piece], y[:, line, piece]
        dts, B, C = projected[:, line, piece].split((dt_weight.shape[0], d_state, d_state), dim=-1)
        step, drive, *others = (buffer[: x.numel()].view(x.shape) for buffer in memory)
        torch.mm(dts.reshape(-1, dt_weight.shape[0]), dt_weight, out=step.view(-1, d_inner))
        softplus_(step, drive)
        if tail and piece.stop >= pieces:
            step[-tail:, :, -1] = 0
        torch.mul(step, x, out=drive)
        for n in range(d_state):
            decay, state = (step, drive) if n == d_state - 1 else others
            torch.mul(drive, B[..., n, None], out=state)
            torch.mul(step, A2[n], out=decay).exp2_()
            states[n] = scan_chunks_(decay.flatten(1, 2), state.flatten(1, 2), states[n], reverse)
            out.addcmul_(state, C[..., n, None])
