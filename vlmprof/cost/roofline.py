"""The roofline estimate: counted costs over a device's ceilings, times how near software comes to them.

Each operation takes as long as the ceiling that is nearest: its FLOPs, its bytes, its special functions,
or the shortest time a kernel takes at all. A stage takes the sum of its operations on the device, or as
long as the host needs to launch them, whichever is longer: then it is launch-bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmprof.cost.costs import CellCost, Kind, OpCost, StageCost
from vlmprof.cost.devices import DeviceSheet


@dataclass(frozen=True)
class Efficiency:
    """How near kernels come to the data sheet, and what a launch costs. The model's only constants.

    The defaults are fitted within `vlmprof.cost.calibration.BOUNDS` to the H200 points of Kuo &
    Cascante-Bonilla 2026, Figure 4, and rounded; a test fits them again. So they stand for that study's
    software: eager PyTorch under autocast, attention without Hopper's own kernels, public scan kernels.
    """

    matmul: float = 0.52
    """Of the dense FLOP/s, for matrix products and convolutions."""
    attention: float = 0.28
    """Of the dense FLOP/s, for fused attention, what causal kernels skip not counted."""
    bandwidth: float = 0.5
    """Of the bytes per second, for everything but scans."""
    scan: float = 0.135
    """Of the nearer of bandwidth and special functions, for scans that are kernels of their own."""
    fused_scan: float = 0.5
    """The same for the project's own SS2D kernels. Not fitted: compiled for sm_90 they issue twice as many
    instructions as their special functions take cycles."""
    kernel_s: float = 5e-6
    """Shortest time of a kernel on the device, with the gap to the next."""
    host_s_per_kernel: float = 18e-6
    """Host time per launch, Python and dispatcher included."""
    queued_kernels: float = 580
    """Launches that a stream holds before the host has to wait for the device."""


@dataclass(frozen=True)
class StageEstimate:
    """Predicted latencies of one stage."""

    host_s: float
    gpu_s: float | None
    """None on a CPU, which has no queue."""
    launching_s: float
    """What the host needs to launch everything, if it never has to wait."""
    busy_s: float
    """Sum of the kernels' own times on the device."""

    @property
    def latency_s(self) -> float:
        """What the stage adds to the end-to-end latency."""
        return self.host_s if self.gpu_s is None else self.gpu_s

    @property
    def launch_bound(self) -> bool:
        """Whether launching takes longer than the work."""
        return self.launching_s >= self.busy_s


@dataclass(frozen=True)
class CellEstimate:
    """Predicted figures of one cell on one device."""

    device: str
    stages: Mapping[str, StageEstimate]
    peak_allocated_bytes: int
    memory_bytes: int
    """What the allocator may take on this device."""
    oom_stage: str | None
    """Where that runs out first, if it does: `build` for the weights alone."""

    @property
    def end_to_end_s(self) -> float:
        """All stages of one iteration, one after the other."""
        return sum(stage.latency_s for stage in self.stages.values())

    @property
    def fits(self) -> bool:
        """Whether the peak stays within the memory."""
        return self.oom_stage is None


def estimate(
    cost: CellCost,
    device: DeviceSheet,
    efficiency: Efficiency | None = None,
    memory_limit_bytes: int | None = None,
    mode: str = "eager",
) -> CellEstimate:
    """Latencies and memory of a counted cell on a device, nothing run.

    `mode` as in a sweep: with `graphs` a stage is one launch, decoding excepted; `compile` is estimated
    like `eager`, so what it would fuse comes out too slow. `memory_limit_bytes` is an allocator's budget,
    as a sweep's `memory_limit`; by default, and at most, what the card has less what the driver takes. Raises
    `UserError` for a dtype that the data sheet does not know.
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
    """Latencies of one counted stage; `one_launch` when the host launches all of it at once."""
    busy_s = sum(n * op_seconds(op, device, efficiency) for op, n in cost.ops.items())
    kernels = 1 if one_launch else cost.kernels
    launching_s = kernels * efficiency.host_s_per_kernel
    if device.synchronous:
        return StageEstimate(launching_s + busy_s, None, launching_s, busy_s)
    # a full queue lets the host go on only as the device does
    waiting_s = busy_s * max(0.0, 1 - efficiency.queued_kernels / max(kernels, 1))
    return StageEstimate(max(launching_s, waiting_s), max(launching_s, busy_s), launching_s, busy_s)


def op_seconds(op: OpCost, device: DeviceSheet, efficiency: Efficiency) -> float:
    """Time of one operation on the device."""
    bytes_s = op.moved_bytes / device.bandwidth_bytes_per_s
    bytes_s += op.slab_bytes / (device.cache_bytes_per_s or device.bandwidth_bytes_per_s)
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
    """A CPU as a sheet of what it reached on the simplest operations, and constants to go with it.

    Nothing is fitted: matrix products and copies are taken to reach their own rates again, attention the
    mean share that it was measured at, scans the bandwidth, and every call costs what an idle one does.
    """
    shares = [attention_flops_per_s[dtype] / rate for dtype, rate in matmul_flops_per_s.items()]
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
