"""Counted costs of operations, stages and cells, as plain data without torch.

1 MAC = 2 FLOPs. FLOPs are those of the mathematical operation, whatever the implementation; bytes are those
that it has to read and write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Kind(StrEnum):
    """The kind of an operation, which determines the ceiling that bounds its latency."""

    MATMUL = "matmul"
    CONVOLUTION = "convolution"
    ATTENTION = "attention"
    """Scaled-dot-product attention as one kernel."""
    SCAN = "scan"
    """Selective scan, and SS2D (including its projections) in separate kernels."""
    FUSED_SCAN = "fused scan"
    """SS2D in a few kernels that recompute intermediate results instead of storing them."""
    ELEMENTWISE = "elementwise"
    """Norms, activations, reductions, sums."""
    COPY = "copy"
    """Moves or converts values without computing any."""
    QUANTIZED_CALL = "quantized call"
    """A call of a quantized layer, beyond its operations: torchao's Python. Its dtype is the precision."""


MATRIX_KINDS = (Kind.MATMUL, Kind.CONVOLUTION, Kind.ATTENTION)
"""Kinds that run on matrix units. torch's `FlopCounterMode` counts only these."""


INT4 = "int4 "
"""What the dtype of activations follows in that of their products with int4 weights: `int4 bfloat16`."""


@dataclass(frozen=True)
class OpCost:
    """One operation on the device."""

    kind: Kind
    dtype: str
    """The dtype of its inputs, as torch names it: `bfloat16`."""
    flops: int = 0
    skipped_flops: int = 0
    """The part of `flops` above the diagonal of causal attention, which causal kernels skip."""
    moved_bytes: int = 0
    """Bytes moved if every input is read once and every output written once."""
    scratch_bytes: int = 0
    """Bytes of reads and writes of temporary tensors sized for a CPU's last-level cache."""
    special_functions: int = 0
    """Evaluations of exp, log, rsqrt and similar functions, for which GPUs have few units."""
    kernels: int = 1
    """Kernel launches on the device."""
    unread_bytes: int = 0
    """Bytes of weight arguments that it does not read: experts without tokens."""
    assumed: str = ""
    """The assumption made to count it, as a sentence; empty if there was none."""


def unread_bytes(ops: Mapping[OpCost, int]) -> int:
    """Return the bytes of weight arguments that these operations do not read."""
    return sum(op.unread_bytes * n for op, n in ops.items())


@dataclass(frozen=True)
class StageCost:
    """The operations and the memory of one stage."""

    ops: Mapping[OpCost, int] = field(default_factory=dict)
    """The number of calls of each distinct operation."""
    weight_bytes: int = 0
    """Parameters and buffers."""
    unread_weight_bytes: int = 0
    """The part of `weight_bytes` that a forward pass does not read: experts without tokens."""
    resident_bytes: int = 0
    """Bytes that weights and tensors prepared for this image size occupy in an allocator's blocks."""
    input_bytes: int = 0
    output_bytes: int = 0
    peak_activation_bytes: int = 0
    """Peak of the bytes alive, with inputs and outputs but without weights, in allocator blocks."""
    kv_cache_bytes: int = 0

    @property
    def flops(self) -> int:
        """FLOPs, including those that causal kernels skip."""
        return sum(op.flops * n for op, n in self.ops.items())

    @property
    def skipped_flops(self) -> int:
        """The part of `flops` that causal attention kernels skip."""
        return sum(op.skipped_flops * n for op, n in self.ops.items())

    @property
    def matrix_flops(self) -> int:
        """FLOPs of matrix products, convolutions and attention only."""
        return sum(op.flops * n for op, n in self.ops.items() if op.kind in MATRIX_KINDS)

    @property
    def moved_bytes(self) -> int:
        """Lower bound on the bytes that unfused operations move."""
        return sum(op.moved_bytes * n for op, n in self.ops.items())

    @property
    def scratch_bytes(self) -> int:
        """Further bytes moved: to memory or, on a CPU, to its last-level cache."""
        return sum(op.scratch_bytes * n for op, n in self.ops.items())

    @property
    def least_bytes(self) -> int:
        """Lower bound for any implementation: weights and inputs read once, outputs written once."""
        return self.weight_bytes - self.unread_weight_bytes + self.input_bytes + self.output_bytes

    @property
    def special_functions(self) -> int:
        """Evaluations of exp, log, rsqrt and similar functions."""
        return sum(op.special_functions * n for op, n in self.ops.items())

    @property
    def kernels(self) -> int:
        """Kernel launches on the device."""
        return sum(op.kernels * n for op, n in self.ops.items())

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The distinct assumptions made to count its operations."""
        return tuple(dict.fromkeys(op.assumed for op in self.ops if op.assumed))

    def repeated(self, times: int) -> StageCost:
        """Return the cost of several such calls, one after another; their memory is that of one."""
        return replace(self, ops={op: n * times for op, n in self.ops.items()})

    def by_kind(self) -> dict[Kind, StageCost]:
        """Split the operations by kind, without the memory."""
        kinds: dict[Kind, Counter[OpCost]] = {}
        for op, n in self.ops.items():
            kinds.setdefault(op.kind, Counter())[op] += n
        return {kind: StageCost(ops=ops) for kind, ops in kinds.items()}


@dataclass(frozen=True)
class CellCost:
    """The counted cost of one cell of a sweep."""

    stages: Mapping[str, StageCost]
    """Costs of `vision`, `connector`, `prefill` and `decode` (all new tokens), where the cell runs them."""
    visual_tokens: int
    held_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes alive during each stage besides its own tensors: the images and, with `outputs = "kept"`, the
    output of the previous iteration."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters and buffers of all parts. `decode` shares those of `prefill`."""
        return sum(cost.weight_bytes for name, cost in self.stages.items() if name != "decode")

    @property
    def resident_bytes(self) -> int:
        """Bytes that the weights occupy in an allocator's blocks."""
        return sum(cost.resident_bytes for name, cost in self.stages.items() if name != "decode")

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The assumptions made for each stage, as sentences."""
        return tuple(
            f"counted {name}: {assumed}" for name, cost in self.stages.items() for assumed in cost.assumptions
        )

    def stage_peak_bytes(self, stage: str) -> int:
        """Return the peak of the bytes allocated during a stage, including the weights of all stages."""
        held = self.held_bytes.get(stage, 0)
        return self.resident_bytes + self.stages[stage].peak_activation_bytes + held

    @property
    def peak_allocated_bytes(self) -> int:
        """The peak of the bytes allocated during an iteration."""
        return max(self.stage_peak_bytes(stage) for stage in self.stages)

    def oom_stage(self, room_bytes: int) -> str | None:
        """Return the first stage that needs more than `room_bytes`, `build` for the weights, or None."""
        if self.resident_bytes > room_bytes:
            return "build"
        return next((stage for stage in self.stages if self.stage_peak_bytes(stage) > room_bytes), None)
