"""The parameters of SS2D, packed in the order in which the kernels read them.

x_proj's rows become four blocks of KW outputs, a multiple of 8: the low-rank steps, zeros, then interleaved
B and C of each state. One matrix product then yields the four blocks of a pixel contiguously, and each (B, C)
pair is one word. The steps come first, so that a rank that is a power of two needs no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmprof.kernels.common.backends import LOG2_E
from vlmprof.kernels.ss2d.parameters import Parameters

LEAST_RANK = 16
"""The smallest inner size of a tensor-core product in 16 bits, and the size of slices of larger ones."""

WHOLE_RANK, WHOLE_RANK_FLOAT32 = 64, 32
"""The largest inner sizes whose factors fit in registers; larger ones are multiplied in slices."""

BLOCK_MULTIPLE = 8
"""KW is a multiple of this, so that blocks of 16-bit values are aligned to 16 bytes for the widest loads."""


@dataclass(frozen=True)
class Packed:
    """Packed parameters of one SS2D. D is d_inner padded to an even number, N is d_state."""

    x_proj: Tensor
    """(4 · KW, D), in the dtype of x."""
    dt_weight: Tensor
    """(4, 2, D / 2, RANK), even channels, then odd ones, in the dtype of x; zeros past dt_rank."""
    dt_bias: Tensor
    """(4, D), float32."""
    a2: Tensor
    """(4, N, D), A · log2(e), float32."""
    skip: Tensor
    """(D), the sum of Ds over the directions, float32."""
    block: int
    """KW, outputs per pixel and direction."""
    rank: int
    """RANK, the inner size of the dt product: a power of two of at least 16; for slices, a multiple of 16."""


def block_shape(dt_rank: int, d_state: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return KW and RANK, see `Packed`. Ranks above 64 (float32: 32) are multiplied in slices."""
    block = -(-(2 * d_state + dt_rank) // BLOCK_MULTIPLE) * BLOCK_MULTIPLE
    if dt_rank > (WHOLE_RANK_FLOAT32 if dtype == torch.float32 else WHOLE_RANK):
        return block, -(-dt_rank // LEAST_RANK) * LEAST_RANK
    return block, max(LEAST_RANK, 1 << (dt_rank - 1).bit_length())


def pack(dtype: torch.dtype, *tensors: Tensor) -> Packed:
    """Pack the tensors of `Parameters` for x of `dtype`. An odd d_inner is padded with a channel of zeros."""
    parameters = Parameters(*tensors)
    d_inner, dt_rank, d_state = parameters.dt_projs_weight.shape[1], parameters.dt_rank, parameters.d_state
    channels = d_inner + d_inner % 2
    block, rank = block_shape(dt_rank, d_state, dtype)

    x_proj = parameters.x_proj_weight.new_zeros(4, block, channels, dtype=dtype)
    dts, B, C = parameters.x_proj_weight.split((dt_rank, d_state, d_state), dim=1)
    x_proj[:, :dt_rank, :d_inner] = dts
    x_proj[:, block - 2 * d_state :: 2, :d_inner] = B
    x_proj[:, block - 2 * d_state + 1 :: 2, :d_inner] = C
    dt_weight = parameters.dt_projs_weight.new_zeros(4, channels, rank, dtype=dtype)
    dt_weight[:, :d_inner, :dt_rank] = parameters.dt_projs_weight

    def padded(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values.float(), (0, channels - d_inner)).contiguous()

    A = parameters.A_logs.float().exp().view(4, d_inner, d_state).transpose(1, 2)
    return Packed(
        x_proj=x_proj.flatten(0, 1),
        dt_weight=dt_weight.unflatten(1, (-1, 2)).transpose(1, 2).contiguous(),
        dt_bias=padded(parameters.dt_projs_bias),
        a2=padded(A * -LOG2_E),
        skip=padded(parameters.Ds.view(4, d_inner).sum(0, dtype=torch.float32)),
        block=block,
        rank=rank,
    )
