"""What a stage costs by counting, apart from what was measured: no torch, no clock.

1 MAC = 2 FLOPs. FLOPs are those of the mathematics; bytes are what has to be read and written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What bounds an operation, so that each has its own ceiling."""

    MATMUL = "matmul"
    CONVOLUTION = "convolution"
    ATTENTION = "attention"
    """Scaled-dot-product attention as one kernel."""
    SCAN = "scan"
    """Selective scan and SS2D as kernels of their own, projections inside SS2D included."""
    FUSED_SCAN = "fused scan"
    """SS2D in few kernels that recompute rather than store."""
    ELEMENTWISE = "elementwise"
    """Norms, activations, reductions, sums."""
    COPY = "copy"
    """Moves or converts, computes nothing."""


MATRIX_KINDS = (Kind.MATMUL, Kind.CONVOLUTION, Kind.ATTENTION)
"""Kinds whose FLOPs are multiply-accumulates on matrix units: all that torch's FLOP counter knows."""


@dataclass(frozen=True)
class OpCost:
    """One operation on the device."""

    kind: Kind
    dtype: str
    """Of its inputs, as torch writes it: `bfloat16`."""
    flops: int = 0
    skipped_flops: int = 0
    """Of `flops`, those above the diagonal of causal attention, which a good kernel does not do."""
    moved_bytes: int = 0
    """Every input read once, every output written once."""
    slab_bytes: int = 0
    """Reads and writes of working tensors that are kept small enough for a CPU's last-level cache."""
    special_functions: int = 0
    """Results of exp, log, rsqrt, … ; GPUs have few units for them."""
    kernels: int = 1
    """Launches on the device."""
    unread_bytes: int = 0
    """Of the weights given to it, what it does not read: experts that no token is sent to."""
    assumed: str = ""
    """What had to be assumed to count it, for a person to read."""


@dataclass(frozen=True)
class StageCost:
    """All operations of one stage, with equal ones counted together, and what it keeps in memory."""

    ops: Mapping[OpCost, int] = field(default_factory=dict)
    weight_bytes: int = 0
    """Parameters and buffers."""
    unread_weight_bytes: int = 0
    """Of them, experts that one forward pass sends no token to."""
    resident_bytes: int = 0
    """Weights as an allocator holds them, in blocks, with what the module prepared for this size."""
    input_bytes: int = 0
    output_bytes: int = 0
    peak_activation_bytes: int = 0
    """Most bytes alive at once beside the weights, inputs and outputs included, in allocator blocks."""
    kv_cache_bytes: int = 0

    @property
    def flops(self) -> int:
        """1 MAC = 2 FLOPs, causal attention counted whole."""
        return sum(op.flops * n for op, n in self.ops.items())

    @property
    def skipped_flops(self) -> int:
        """Of `flops`, those that a kernel for causal attention skips."""
        return sum(op.skipped_flops * n for op, n in self.ops.items())

    @property
    def matrix_flops(self) -> int:
        """FLOPs of matrix products, convolutions and attention alone."""
        return sum(op.flops * n for op, n in self.ops.items() if op.kind in MATRIX_KINDS)

    @property
    def moved_bytes(self) -> int:
        """What operations that are not fused move at least."""
        return sum(op.moved_bytes * n for op, n in self.ops.items())

    @property
    def slab_bytes(self) -> int:
        """What is moved beside that, to memory or, on a CPU, to its cache."""
        return sum(op.slab_bytes * n for op, n in self.ops.items())

    @property
    def least_bytes(self) -> int:
        """What any implementation moves: weights that are read and inputs once in, outputs once out."""
        return self.weight_bytes - self.unread_weight_bytes + self.input_bytes + self.output_bytes

    @property
    def special_functions(self) -> int:
        """Results of exp, log, rsqrt and the like."""
        return sum(op.special_functions * n for op, n in self.ops.items())

    @property
    def kernels(self) -> int:
        """Launches on the device, one by one."""
        return sum(op.kernels * n for op, n in self.ops.items())

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed of its operations, each once."""
        return tuple(dict.fromkeys(op.assumed for op in self.ops if op.assumed))

    def by_kind(self) -> dict[Kind, StageCost]:
        """The operations of each kind as a cost of their own."""
        kinds: dict[Kind, Counter[OpCost]] = {}
        for op, n in self.ops.items():
            kinds.setdefault(op.kind, Counter())[op] += n
        return {kind: StageCost(ops=ops) for kind, ops in kinds.items()}


@dataclass(frozen=True)
class CellCost:
    """What one cell of a sweep costs by counting."""

    stages: Mapping[str, StageCost]
    """`vision`, `connector`, `prefill` and, where asked for, `decode` (all new tokens)."""
    visual_tokens: int
    held_bytes: Mapping[str, int] = field(default_factory=dict)
    """By stage, what is alive beside the stage's own tensors: the images, and the output of the iteration
    before where that is kept."""
    encoder_tokens: int | None = None
    tiles: int | None = None
    """What a VLM of transformers makes of an image before its connector."""

    @property
    def weight_bytes(self) -> int:
        """Parameters and buffers of all three parts; `decode` uses those of `prefill`."""
        return sum(cost.weight_bytes for name, cost in self.stages.items() if name != "decode")

    @property
    def resident_bytes(self) -> int:
        """Weights as an allocator holds them."""
        return sum(cost.resident_bytes for name, cost in self.stages.items() if name != "decode")

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, by stage, for a person to read."""
        return tuple(
            f"counted {name}: {assumed}" for name, cost in self.stages.items() for assumed in cost.assumptions
        )

    def stage_peak_bytes(self, stage: str) -> int:
        """Most bytes allocated while a stage runs, the weights of all stages included."""
        held = self.held_bytes.get(stage, 0)
        return self.resident_bytes + self.stages[stage].peak_activation_bytes + held

    @property
    def peak_allocated_bytes(self) -> int:
        """Most bytes allocated during an iteration."""
        return max(self.stage_peak_bytes(stage) for stage in self.stages)

    def oom_stage(self, room_bytes: int) -> str | None:
        """Where so much memory runs out first, in the words of a row; `build` for the weights alone."""
        if self.resident_bytes > room_bytes:
            return "build"
        return next((stage for stage in self.stages if self.stage_peak_bytes(stage) > room_bytes), None)
