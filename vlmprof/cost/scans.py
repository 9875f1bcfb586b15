"""Costs of the project's own operators, for each implementation of the scans.

`triton`     our kernels, which write no tensor of four directions and d_inner channels
`torch`      our implementation for a CPU: one direction at a time, in segments that fit the cache
`published`  VMamba's public code (arXiv 2401.10166): separate kernels for cross-scan, projections, scan and
             merge, with their results in memory

FLOPs are those of `vlmprof.kernels.common.counts` for all of them. Special functions are, for each position,
channel and direction, exp2 and log2 of the softplus, and exp2 of each state's decay. Bytes and launches
follow from the code of each implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

import vlmprof.kernels  # noqa: F401  (registers the operators)
from vlmprof.cost.costs import Kind, OpCost
from vlmprof.cost.formulas import dtype_name, formula, product, tensors_in, touched_bytes
from vlmprof.cost.liveness import in_blocks
from vlmprof.kernels.common.counts import scan_flops, ss2d_counts
from vlmprof.kernels.ss2d.chunks import chunk_count, tiles_per_chunk
from vlmprof.kernels.ss2d.packing import block_shape

Kernels = Literal["triton", "torch", "published"]
KERNELS: tuple[str, ...] = get_args(Kernels)
ops = torch.ops.vlmprof

DIRECTIONS = 4
FLOAT_BYTES = 4
"""Scans and merges compute in float32."""

TORCH_PASSES = 8
"""Reads and writes of temporary tensors per direction in `kernels/ss2d/vectorized.py`: step sizes 1, softplus
5, drive 2."""
TORCH_STATE_PASSES = 17
"""Further ones per state: B 2, A 2, exp2 2, scan within the pieces 7, their initial states 3, C 1."""
TORCH_IMAGE_PASSES = 3
"""Reads and writes of float32 images per direction: x read, sum read and written."""
TORCH_KERNELS_PER_SEGMENT = 75
"""60 to 95 at the levels of VMamba: two per step of a piece, and a few per level of their initial states."""
TORCH_SEGMENT = 1 << 20
"""Largest number of elements of a temporary tensor: `SEGMENT_ELEMENTS` in `kernels/ss2d/vectorized.py`."""

TORCH_SCAN_PASSES = 28
"""The same in `kernels/selective_scan/vectorized.py`, where x and the sum are temporary tensors too."""
TORCH_SCAN_KERNELS_PER_SEGMENT = 60
TORCH_SCAN_SEGMENT = 1 << 19

PUBLISHED_KERNELS = 16
"""Launches per SS2D block of the public code: cross-scan, two projections, three copies of the split
projection, five casts and exponentials of the parameters, scan, merge, and the layout changes around them."""


def scan_special_functions(positions: int, d_state: int, softplus: bool = True) -> int:
    """Return the special functions of a scan: one per state for the decay, and two for the softplus."""
    return positions * (d_state + (2 if softplus else 0))


def is_scan(func: Any) -> bool:
    """Return whether the cost of an operator depends on the implementation of the scans."""
    return func.overloadpacket in _SCANS


def scan_cost(func: Any, args: tuple[Any, ...], output: Tensor, kernels: Kernels) -> tuple[OpCost, int]:
    """Return the cost of a scan, and its workspace in bytes."""
    return _SCANS[func.overloadpacket](output, args, kernels)


class _Traffic(NamedTuple):
    """What an implementation moves, allocates and launches; the first two as in `OpCost`."""

    moved_bytes: int
    scratch_bytes: int
    workspace_bytes: int
    launches: int


@dataclass(frozen=True)
class _SS2D:
    """The sizes of an SS2D, and the traffic of each implementation."""

    elements: int
    """batch · height · width · d_inner"""
    chunks: int
    """Chunks of all images in the Triton kernels, without tuning."""
    tiles: int
    """Tiles of all images in these kernels."""
    block: int
    """Outputs of the Triton kernels' projection per pixel and direction."""
    rows: int
    """Outputs of the projection per pixel: delta, B and C of all directions."""
    d_inner: int
    d_state: int
    item_bytes: int

    @property
    def image(self) -> int:
        """Bytes of x, which are those of the output."""
        return self.elements * self.item_bytes

    @property
    def projected(self) -> int:
        """Bytes of the projection."""
        return self.elements // self.d_inner * self.rows * self.item_bytes

    @property
    def merged(self) -> int:
        """Bytes of the float32 output of the merge."""
        return self.elements * FLOAT_BYTES

    def triton(self) -> _Traffic:
        # x is read by the projection and by both passes, once for each direction or for two at once; the
        # first of the output pass writes the sum, and the others add to it
        passes = 2 if self.d_state == 1 else DIRECTIONS
        # for each chunk: the sum of step sizes, the final states and the initial states
        carries = DIRECTIONS * self.chunks * self.d_inner * (1 + 2 * self.d_state) * FLOAT_BYTES
        if self.d_state == 1:
            # for each tile and backward direction: decay and state of the part of the chunk before it
            carries += 2 * self.tiles * 2 * self.d_inner * FLOAT_BYTES
        projected = self.elements // self.d_inner * DIRECTIONS * self.block * self.item_bytes
        moved = (2 + 2 * passes) * self.image + 3 * projected
        moved += (2 * passes - 2) * self.merged + 2 * carries
        workspace = projected + carries + (self.merged if self.item_bytes < FLOAT_BYTES else 0)
        return _Traffic(moved, 0, workspace, 5 if self.d_state == 1 else 10)

    def torch(self) -> _Traffic:
        moved = 2 * self.image + 2 * self.projected + (TORCH_IMAGE_PASSES * DIRECTIONS + 1) * self.merged
        scratch = (TORCH_PASSES + TORCH_STATE_PASSES * self.d_state) * DIRECTIONS * self.merged
        # workspace: the projection with a bias per direction, and again while a library computes it; step
        # size and drive of a segment (also decay and state if there are several states); and a fifth of a
        # temporary tensor for the initial states of its pieces
        temporaries = 2.2 if self.d_state == 1 else 4.2
        segment = int(temporaries * self.elements / -(-self.elements // TORCH_SEGMENT)) * FLOAT_BYTES
        projected = self.projected + DIRECTIONS * self.elements // self.d_inner * self.item_bytes
        workspace = 2 * projected + segment
        if self.item_bytes < FLOAT_BYTES:
            workspace += self.merged + projected * FLOAT_BYTES // self.item_bytes
        segments = -(-self.elements // TORCH_SEGMENT) * DIRECTIONS
        return _Traffic(moved, scratch, workspace, 10 + segments * TORCH_KERNELS_PER_SEGMENT)

    def published(self) -> _Traffic:
        steps, scans = DIRECTIONS * self.image, DIRECTIONS * self.merged
        cross_scan = self.image + steps
        projections = (steps + self.projected) + 2 * self.projected + (self.projected + steps)
        scan = 2 * steps + self.projected + scans
        merge = (scans + self.merged) + (self.merged + self.image)
        workspace = 2 * steps + 2 * self.projected + scans
        return _Traffic(cross_scan + projections + scan + merge, 0, workspace, PUBLISHED_KERNELS)


def _ss2d(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    x, _, dt_projs, _, A_logs, _ = args[:6]
    batch, height, width, d_inner = x.shape
    dt_rank, d_state = dt_projs.shape[2], A_logs.shape[1]
    tiles = chunk_count(height * width, 1)
    chunks = batch * chunk_count(height * width, tiles_per_chunk(height * width, d_inner, batch))
    block, _ = block_shape(dt_rank, d_state, x.dtype)
    rows = DIRECTIONS * (dt_rank + 2 * d_state)
    sizes = _SS2D(x.numel(), chunks, batch * tiles, block, rows, d_inner, d_state, x.element_size())
    traffic: _Traffic = getattr(sizes, kernels)()
    scanned = DIRECTIONS * x.numel()
    flops = ss2d_counts(batch, height, width, d_inner, dt_rank, d_state, x.element_size()).flops
    # the Triton kernels scan twice: for the carries of the chunks, and for the output
    passes = 2 if kernels == "triton" else 1
    cost = OpCost(
        Kind.FUSED_SCAN if kernels == "triton" else Kind.SCAN,
        dtype_name(x),
        flops=flops,
        moved_bytes=traffic.moved_bytes + touched_bytes(args[1:6]),
        scratch_bytes=traffic.scratch_bytes,
        special_functions=passes * scan_special_functions(scanned, d_state),
        kernels=traffic.launches,
    )
    return cost, in_blocks(traffic.workspace_bytes)


def _selective_scan(output: Tensor, args: tuple[Any, ...], kernels: Kernels) -> tuple[OpCost, int]:
    u, _, A, *_ = args
    d_state, softplus = A.shape[1], bool(args[7])
    moved, scratch, launches, workspace = touched_bytes(tensors_in((*args[:7], output))), 0, 1, 0
    if kernels == "torch":
        scratch = TORCH_SCAN_PASSES * u.numel() * FLOAT_BYTES * d_state
        launches = 10 + -(-u.numel() // TORCH_SCAN_SEGMENT) * TORCH_SCAN_KERNELS_PER_SEGMENT * d_state
        # float32: u, step size twice, drive, sum, decay, state, and the output of a piece
        workspace = 8 * min(u.numel(), TORCH_SCAN_SEGMENT) * FLOAT_BYTES
    cost = OpCost(
        Kind.SCAN,
        dtype_name(u),
        flops=scan_flops(u.numel(), d_state),
        moved_bytes=moved,
        scratch_bytes=scratch,
        special_functions=scan_special_functions(u.numel(), d_state, softplus),
        kernels=launches,
    )
    return cost, in_blocks(workspace)


_SCANS = {ops.ss2d: _ss2d, ops.selective_scan: _selective_scan}


@formula(ops.cross_scan)
def _cross_scan(output: Tensor, image: Tensor, *_: Any) -> OpCost:
    return product(Kind.COPY, 0, output, image)


@formula(ops.cross_merge)
def _cross_merge(output: Tensor, directions: Tensor, *_: Any) -> OpCost:
    return product(Kind.ELEMENTWISE, (DIRECTIONS - 1) * output.numel(), output, directions)


@formula(ops.linear)
def _linear(
    output: Tensor, x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor,
    bias: Tensor | None, residual: Tensor | None, activation: str | None, eps: float,
) -> OpCost:  # fmt: skip
    per_output = 2 * weight.shape[1] + (residual is not None) + (4 if activation else 0)
    flops = per_output * output.numel() + (0 if norm_weight is None else 7 * x.numel())
    return product(
        Kind.MATMUL, flops, output, x, norm_weight, norm_bias, weight, bias, residual,
        special_functions=output.numel() if activation else 0,
    )  # fmt: skip


@formula(ops.layer_norm)
def _layer_norm(
    output: Tensor, x: Tensor, weight: Tensor, bias: Tensor, input_bias: Tensor | None,
    activation: str | None, eps: float,
) -> OpCost:  # fmt: skip
    per_value = 7 + (input_bias is not None) + (4 if activation else 0)
    return product(
        Kind.ELEMENTWISE, per_value * x.numel(), output, x, weight, bias, input_bias,
        special_functions=x.numel() if activation else 0,
    )  # fmt: skip


@formula(ops.convolution_norm)
def _convolution_norm(
    output: Tensor, x: Tensor, filters: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    input_bias: Tensor | None, stride: int, padding: int, activation: str | None, eps: float,
) -> OpCost:  # fmt: skip
    per_value = 2 * filters[0].numel() + 7 + (input_bias is not None) + (4 if activation else 0)
    return product(
        Kind.CONVOLUTION, per_value * output.numel(), output, x, filters, norm_weight, norm_bias, input_bias,
        special_functions=output.numel() if activation else 0,
    )  # fmt: skip


@formula(ops.norm_mlp)
def _norm_mlp(
    output: Tensor, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, fc1_weight: Tensor, *others: Any
) -> OpCost:
    hidden = x.numel() // x.shape[-1] * fc1_weight.shape[0]
    flops = 4 * hidden * x.shape[-1] + 4 * hidden + 8 * x.numel()
    return product(
        Kind.MATMUL, flops, output, x, norm_weight, norm_bias, fc1_weight, others, special_functions=hidden
    )


@formula(ops.depthwise_conv_silu)
def _depthwise_conv_silu(output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> OpCost:
    flops = output.numel() * (2 * weight[0].numel() + 4)
    return product(Kind.CONVOLUTION, flops, output, x, weight, bias, special_functions=2 * output.numel())
