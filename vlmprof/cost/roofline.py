"""Roofline estimates (Williams, Waterman & Patterson 2009): counted costs divided by reachable ceilings.

The time of an operation is the longest of four: for its FLOPs, its bytes, its special functions, and the
minimum of a kernel. The time of a stage is the sum of its operations on the device or the time that the host
needs to launch them, whichever is longer. In the second case, the stage is launch-bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlmprof.cost.costs import CellCost, Kind, OpCost, StageCost
from vlmprof.cost.devices import DeviceSheet


@dataclass(frozen=True)
class Efficiency:
    """The constants of the model: the reached shares of the ceilings, and the cost of a launch.

    The defaults are fitted within `vlmprof.cost.calibration.BOUNDS` to the H200 points of Kuo &
    Cascante-Bonilla 2026 (arXiv 2603.19209), Figure 4, and rounded; a test repeats the fit. They therefore
    describe that study's software: eager PyTorch under autocast, attention without Hopper-specific kernels,
    and public scan kernels.
    """

    matmul: float = 0.52
    """Share of the dense FLOP/s that matrix products and convolutions reach."""
    attention: float = 0.28
    """Share of the dense FLOP/s that fused attention reaches, without the FLOPs that causal kernels skip."""
    bandwidth: float = 0.5
    """Share of the bandwidth that all operations except scans reach."""
    scan: float = 0.135
    """Share of the bandwidth or the special functions, whichever bounds, that separate scan kernels reach."""
    fused_scan: float = 0.5
    """The same for the fused SS2D kernels. Not fitted: compiled for sm_90, they issue twice as many
    instructions as their special functions take cycles."""
    kernel_s: float = 5e-6
    """Minimum time of a kernel on the device, including the gap to the next one."""
    host_s_per_kernel: float = 18e-6
    """Host time per launch, including Python and the dispatcher."""
    queued_kernels: float = 580
    """Number of launches in the queue above which the host waits for the device."""
    quantized_call_s: Mapping[str, float] = field(default_factory=dict)
    """Time that a quantized layer takes beyond its operations, by precision. Measured on a CPU; on a GPU, the
    host's time per launch stands for it."""


@dataclass(frozen=True)
class StageEstimate:
    """Predicted latencies of one stage."""

    host_s: float
    gpu_s: float | None
    """None on a CPU, where calls are synchronous."""
    launching_s: float
    """Time that the host needs for all launches if it never waits."""
    busy_s: float
    """Sum of the kernels' times on the device."""

    @property
    def latency_s(self) -> float:
        """The stage's part of the end-to-end latency."""
        return self.host_s if self.gpu_s is None else self.gpu_s

    @property
    def launch_bound(self) -> bool:
        """Whether launching takes longer than the kernels."""
        return self.launching_s >= self.busy_s


@dataclass(frozen=True)
class CellEstimate:
    """Predicted figures of one cell on one device."""

    device: str
    stages: Mapping[str, StageEstimate]
    peak_allocated_bytes: int
    memory_bytes: int
    """Memory available to the allocator."""
    oom_stage: str | None
    """The first stage that needs more, `build` for the weights; None if the cell fits."""

    @property
    def end_to_end_s(self) -> float:
        """The sum of all stages."""
        return sum(stage.latency_s for stage in self.stages.values())

    @property
    def fits(self) -> bool:
        """Whether the peak is within the memory."""
        return self.oom_stage is None


def estimate(
    cost: CellCost,
    device: DeviceSheet,
    efficiency: Efficiency | None = None,
    memory_limit_bytes: int | None = None,
    mode: str = "eager",
) -> CellEstimate:
    """Estimate the latencies and the peak memory of a counted cell on a device.

    Args:
        memory_limit_bytes: Memory for the allocator; by default, and at most, the device's without that of
            the driver.
        mode: The cell's execution mode. With `graphs`, each stage except decoding is a single launch.
            `compile` is estimated like `eager`, without fusion, and therefore too slow.

    Raises `UserError` for a dtype that the data sheet has no rate for.
    """
    used = efficiency or Efficiency()
    allowed = min(memory_limit_bytes or device.usable_bytes, device.usable_bytes)
    return CellEstimate(
        device=device.name,
        stages={
            name: estimate_stage(stage, device, used, one_launch=mode == "graphs" and name != "decode")
            for name, stage in cost.stages.items()
        },
        peak_allocated_bytes=cost.peak_allocated_bytes + device.workspace_bytes,
        memory_bytes=allowed,
        oom_stage=cost.oom_stage(allowed - device.workspace_bytes),
    )


def estimate_stage(
    cost: StageCost, device: DeviceSheet, efficiency: Efficiency, one_launch: bool = False
) -> StageEstimate:
    """Estimate the latencies of a counted stage, which `one_launch` starts as a whole."""
    busy_s = sum(n * op_seconds(op, device, efficiency) for op, n in cost.ops.items())
    kernels = 1 if one_launch else cost.kernels
    launching_s = kernels * efficiency.host_s_per_kernel
    if device.synchronous:
        return StageEstimate(launching_s + busy_s, None, launching_s, busy_s)
    # with a full queue, the host advances only as the device does
    waiting_s = busy_s * max(0.0, 1 - efficiency.queued_kernels / max(kernels, 1))
    return StageEstimate(max(launching_s, waiting_s), max(launching_s, busy_s), launching_s, busy_s)


def op_seconds(op: OpCost, device: DeviceSheet, efficiency: Efficiency) -> float:
    """Estimate the time of one operation on the device, in seconds."""
    if op.kind is Kind.QUANTIZED_CALL:
        return efficiency.quantized_call_s.get(op.dtype, 0.0)
    bytes_s = op.moved_bytes / device.bandwidth_bytes_per_s
    bytes_s += op.scratch_bytes / (device.cache_bytes_per_s or device.bandwidth_bytes_per_s)
    special_s = op.special_functions / device.special_functions_per_s
    floor_s = op.kernels * efficiency.kernel_s
    if op.kind in (Kind.SCAN, Kind.FUSED_SCAN):
        reached = efficiency.scan if op.kind is Kind.SCAN else efficiency.fused_scan
        return max(floor_s, max(bytes_s, special_s) / reached)
    if op.kind is Kind.ATTENTION:
        work_s = (op.flops - op.skipped_flops) / device.rate(op.dtype) / efficiency.attention
    elif op.kind in (Kind.MATMUL, Kind.CONVOLUTION):
        work_s = op.flops / device.rate(op.dtype) / efficiency.matmul
    else:
        work_s = special_s
    return max(floor_s, bytes_s / efficiency.bandwidth, work_s)


def measured_device(
    name: str,
    memory_bytes: int,
    bandwidth_bytes_per_s: float,
    cache_bytes_per_s: float,
    special_functions_per_s: float,
    matmul_flops_per_s: Mapping[str, float],
    attention_flops_per_s: Mapping[str, float],
    call_s: float,
) -> tuple[DeviceSheet, Efficiency]:
    """Return a data sheet of a CPU from the measured rates of simple operations, with its constants.

    Nothing is fitted: matrix products, copies and scans are assumed to reach the measured rates, attention
    its mean measured share, and every call to take as long as one without work.
    """
    shares = [rate / matmul_flops_per_s[dtype] for dtype, rate in attention_flops_per_s.items()]
    sheet = DeviceSheet(
        name="here",
        title=name,
        memory_bytes=memory_bytes,
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        cache_bytes_per_s=cache_bytes_per_s,
        flops_per_s=matmul_flops_per_s,
        special_functions_per_s=special_functions_per_s,
        synchronous=True,
    )
    constants = Efficiency(
        matmul=1.0, attention=sum(shares) / len(shares), bandwidth=1.0, scan=1.0, fused_scan=1.0,
        kernel_s=0.0, host_s_per_kernel=call_s,
    )  # fmt: skip
    return sheet, constants
