"""Costs of the project's own operators, by the implementation that would run.

`triton`     ours: no tensor with four directions of d_inner channels is written.
`torch`      ours for a CPU: one direction at a time, in segments that stay in the cache.
`published`  the public code of VMamba (arXiv 2401.10166), operation by operation: cross-scan, projections,
             scan and merge are kernels of their own, with their results in memory.

The mathematics is the same for all, and its FLOPs are those of `vlmprof.kernels.common.counts`. Special
functions are counted beside them: per position, channel and direction an exp2 and a log2 for the softplus,
and an exp2 for each state's decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

import vlmprof.kernels  # noqa: F401  (registers the operators)
from vlmprof.cost.costs import Kind, OpCost
from vlmprof.cost.formulas import dtype_name, tensors_in, touched_bytes
from vlmprof.cost.liveness import in_blocks
from vlmprof.kernels.common.counts import scan_flops, ss2d_counts
from vlmprof.kernels.ss2d.chunks import chunk_count, tiles_per_chunk
from vlmprof.kernels.ss2d.packing import block_shape

Kernels = Literal["triton", "torch", "published"]
KERNELS: tuple[str, ...] = get_args(Kernels)

DIRECTIONS = 4
FLOAT_BYTES = 4
"""Scans and merges work in float32."""

TORCH_PASSES = 8
"""Reads and writes of a working tensor per direction in `kernels/ss2d/vectorized.py`: 1 for the step sizes,
5 softplus, 2 drive."""
TORCH_STATE_PASSES = 17
"""Besides, per state: 2 B, 2 A, 2 exp2, 7 within the pieces, 3 to add what enters them, 1 for C."""
TORCH_IMAGE_PASSES = 3
"""Of whole images in float32 per direction: x read, the sum read and written."""
TORCH_KERNELS_PER_SEGMENT = 75
"""60 to 95 at VMamba's levels: two per step of a piece, a few for each level of what enters the pieces."""
TORCH_SEGMENT = 1 << 20
"""Most elements of a working tensor: `SEGMENT_ELEMENTS` of `kernels/ss2d/vectorized.py`."""

TORCH_SCAN_PASSES = 28
"""The same in `kernels/selective_scan/vectorized.py`, where x and the sum are working tensors too."""
TORCH_SCAN_KERNELS_PER_SEGMENT = 60
TORCH_SCAN_SEGMENT = 1 << 19

PUBLISHED_KERNELS = 16
"""Launches per SS2D block of the public code: cross-scan, two projections, three splits made contiguous,
five casts and exponentials of the parameters, scan, merge, and layout changes around them."""


def scan_special_functions(positions: int, d_state: int, softplus: bool = True) -> int:
    """Decays, and exp2 and log2 for each softplus."""
    return positions * (d_state + (2 if softplus else 0))


def project_op(func: Any, args: tuple[Any, ...], output: Tensor, kernels: Kernels) -> tuple[OpCost, int]:
    """Cost and workspace in bytes of an operator of `torch.ops.vlmprof`.

    Raises `KeyError` for one that has no formula.
    """
    return _COSTS[func.overloadpacket.__name__](output, args, kernels)


@dataclass(frozen=True)
class _SS2D:
    """Sizes of one SS2D, and what implementations make of them.

    (moved bytes, slab bytes, workspace bytes, launches); the first two as in `OpCost`.
    """

    elements: int
    """batch · height · width · d_inner"""
    chunks: int
    """Of all images, as the Triton kernels cut them without tuning."""
    block: int
    """Outputs of their projection per pixel and direction."""
    rows: int
    """Channels of the projection: all directions' step parameters, B and C."""
    d_inner: int
    d_state: int
    item_bytes: int

    @property
    def image(self) -> int:
        """Bytes of x, and of the output."""
        return self.elements * self.item_bytes

    @property
    def projected(self) -> int:
        """Bytes of the projection."""
        return self.elements // self.d_inner * self.rows * self.item_bytes

    @property
    def merged(self) -> int:
        """Bytes of the output before it is rounded."""
        return self.elements * FLOAT_BYTES

    def triton(self) -> tuple[int, int, int, int]:
        # x is read by the projection, by each direction's summary, and by each launch of the output, of
        # which the first writes the sum and the others add to it
        outputs = 2 if self.d_state == 1 else DIRECTIONS
        # of each chunk the sum of steps, the states at its end and those that enter it
        carries = DIRECTIONS * self.chunks * self.d_inner * (1 + 2 * self.d_state) * FLOAT_BYTES
        projected = self.elements // self.d_inner * DIRECTIONS * self.block * self.item_bytes
        moved = (2 + DIRECTIONS + outputs) * self.image + 3 * projected
        moved += (2 * outputs - 2) * self.merged + 2 * carries
        workspace = projected + carries + (self.merged if self.item_bytes < FLOAT_BYTES else 0)
        return moved, 0, workspace, 5 if self.d_state == 1 else 10

    def torch(self) -> tuple[int, int, int, int]:
        moved = 2 * self.image + 2 * self.projected + (TORCH_IMAGE_PASSES * DIRECTIONS + 1) * self.merged
        slabs_moved = (TORCH_PASSES + TORCH_STATE_PASSES * self.d_state) * DIRECTIONS * self.merged
        # beside the output: the projection with a bias per direction, once more while a library makes it,
        # a segment's step and drive (with decay and state where several states share them), and a fifth
        # of a slab for what enters its pieces
        slabs = 2.2 if self.d_state == 1 else 4.2
        segment = int(slabs * self.elements / -(-self.elements // TORCH_SEGMENT)) * FLOAT_BYTES
        projected = self.projected + DIRECTIONS * self.elements // self.d_inner * self.item_bytes
        workspace = 2 * projected + segment
        if self.item_bytes < FLOAT_BYTES:
            workspace += self.merged + projected * FLOAT_BYTES // self.item_bytes
        segments = -(-self.elements // TORCH_SEGMENT) * DIRECTIONS
        return moved, slabs_moved, workspace, 10 + segments * TORCH_KERNELS_PER_SEGMENT

    def published(self) -> tuple[int, int, int, int]:
        steps, scans = DIRECTIONS * self.image, DIRECTIONS * self.merged
        cross_scan = self.image + steps
        projections = (steps + self.projected) + 2 * self.projected + (self.projected + steps)
        scan = 2 * steps + self.projected + scans
        merge = (scans + self.merged) + (self.merged + self.image)
        workspace = 2 * steps + 2 * self.projected + scans
        return cross_scan + projections + scan + merge, 0, workspace, PUBLISHED_KERNELS


def _ss2d(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    x, _, dt_projs, _, A_logs, _ = args[:6]
    batch, height, width, d_inner = x.shape
    dt_rank, d_state = dt_projs.shape[2], A_logs.shape[1]
    chunks = batch * chunk_count(height * width, tiles_per_chunk(height * width, d_inner, batch))
    block, _ = block_shape(dt_rank, d_state, x.dtype)
    rows = DIRECTIONS * (dt_rank + 2 * d_state)
    sizes = _SS2D(x.numel(), chunks, block, rows, d_inner, d_state, x.element_size())
    moved, slabs, workspace, launches = getattr(sizes, kernels)()
    scanned = DIRECTIONS * x.numel()
    flops = ss2d_counts(batch, height, width, d_inner, dt_rank, d_state, x.element_size()).flops
    # ours scans twice: once for what each chunk carries, once for the output
    passes = 2 if kernels == "triton" else 1
    cost = OpCost(
        Kind.FUSED_SCAN if kernels == "triton" else Kind.SCAN,
        dtype_name(x),
        flops=flops,
        moved_bytes=moved + touched_bytes(args[1:6]),
        slab_bytes=slabs,
        special_functions=passes * scan_special_functions(scanned, d_state),
        kernels=launches,
    )
    return cost, in_blocks(workspace)


def _selective_scan(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    u, _, A, *_ = args
    d_state, softplus = A.shape[1], bool(args[7])
    moved, slabs, launches, workspace = touched_bytes(tensors_in(args[:7])) + touched_bytes([output]), 0, 1, 0
    if kernels == "torch":
        slabs = TORCH_SCAN_PASSES * u.numel() * FLOAT_BYTES * d_state
        launches = 10 + -(-u.numel() // TORCH_SCAN_SEGMENT) * TORCH_SCAN_KERNELS_PER_SEGMENT * d_state
        # u, step twice, drive, sum, decay, state and the output's piece, in float32
        workspace = 8 * min(u.numel(), TORCH_SCAN_SEGMENT) * FLOAT_BYTES
    cost = OpCost(
        Kind.SCAN,
        dtype_name(u),
        flops=scan_flops(u.numel(), d_state),
        moved_bytes=moved,
        slab_bytes=slabs,
        special_functions=scan_special_functions(u.numel(), d_state, softplus),
        kernels=launches,
    )
    return cost, in_blocks(workspace)


def _cross_scan(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    moved = touched_bytes([args[0], output])
    return OpCost(Kind.COPY, dtype_name(args[0]), moved_bytes=moved), 0


def _cross_merge(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    moved = touched_bytes([args[0], output])
    flops = (DIRECTIONS - 1) * output.numel()
    return OpCost(Kind.ELEMENTWISE, dtype_name(args[0]), flops=flops, moved_bytes=moved), 0


def _linear(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    x, norm_weight, _, weight, _, residual, activation, _ = args
    per_output = (residual is not None) + (4 if activation else 0)
    flops = 2 * output.numel() * weight.shape[1] + per_output * output.numel()
    if norm_weight is not None:
        flops += 7 * x.numel()
    return OpCost(
        Kind.MATMUL,
        dtype_name(x),
        flops=flops,
        moved_bytes=touched_bytes(tensors_in(args)) + touched_bytes([output]),
        special_functions=output.numel() if activation else 0,
    ), 0


def _depthwise_conv_silu(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    x, weight, bias = args
    return OpCost(
        Kind.CONVOLUTION,
        dtype_name(x),
        flops=output.numel() * (2 * weight[0].numel() + 4),
        moved_bytes=touched_bytes(tensors_in((x, weight, bias, output))),
        special_functions=2 * output.numel(),
    ), 0


_COSTS = {
    "ss2d": _ss2d,
    "selective_scan": _selective_scan,
    "cross_scan": _cross_scan,
    "cross_merge": _cross_merge,
    "linear": _linear,
    "depthwise_conv_silu": _depthwise_conv_silu,
}


def is_project_op(func: Any) -> bool:
    """Whether an operator is one of `torch.ops.vlmprof` with a formula here."""
    return func.namespace == "vlmprof" and func.overloadpacket.__name__ in _COSTS


def registered_without_formula() -> list[str]:
    """Operators of `torch.ops.vlmprof` that are missing here, for a test to find."""
    names = {
        schema.name.removeprefix("vlmprof::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("vlmprof::")
    }
    return sorted(names - _COSTS.keys())
