"""Data sheets of accelerators: ceilings that software reaches only in part, see `vlmprof.cost.roofline`.

Rates are dense; vendors often print the doubled rate of structured sparsity. The `float32` rate is without
TF32, which torch does not use for matrix products by default. Memory is what the driver reports.

Sources: NVIDIA's data sheets of H200, H100, B200 (HGX B200), A100, L40S and L4, and its architecture white
papers of Ada (GeForce RTX 4090), Ampere GA102 (RTX 3090) and Blackwell (RTX 5090), with bfloat16 and float8
products accumulated in float32; AMD's data sheet of MI300X. Special functions: 16 results per clock and
multiprocessor (CUDA programming guide, throughput of native arithmetic), at boost clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmprof.cost.costs import INT4
from vlmprof.errors import UserError, unknown

MIB, TERA, GIGA = 2**20, 1e12, 1e9


@dataclass(frozen=True)
class DeviceSheet:
    """The ceilings of one device."""

    name: str
    """The argument of `--gpu`: `h200`."""
    title: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    """Bandwidth of the device memory."""
    flops_per_s: Mapping[str, float]
    """Rate of dense matrix products by dtype, as torch names it."""
    special_functions_per_s: float
    workspace_bytes: int = 0
    """Memory that libraries take from the allocator: the workspace of cuBLAS."""
    context_bytes: int = 0
    """Memory of the driver and loaded kernels, outside the allocator."""
    cache_bytes_per_s: float | None = None
    """Bandwidth for temporary tensors sized for the last-level cache; None for the memory's bandwidth."""
    synchronous: bool = False
    """Whether a call returns only when its operation is finished, as on a CPU."""

    @property
    def usable_bytes(self) -> int:
        """What is left for the allocator."""
        return self.memory_bytes - self.context_bytes

    def rate(self, dtype: str) -> float:
        """Return the FLOP/s of matrix products in a dtype. Raises `UserError` if the data sheet has none.

        Products with int4 weights multiply in the dtype of their activations where no other rate is known.
        """
        if dtype not in self.flops_per_s:
            dtype = dtype.removeprefix(INT4)
        if dtype not in self.flops_per_s:
            known = ", ".join(self.flops_per_s)
            raise UserError(f"the data sheet of {self.title} has no rate for {dtype}, only for {known}")
        return self.flops_per_s[dtype]


def _gpu(
    name: str, title: str, memory_mib: int, gb_per_s: float, bf16: float, fp32: float, int8: float,
    fp8: float | None, sms: int, ghz: float, workspace_mib: float = 8.125,
) -> DeviceSheet:  # fmt: skip
    rates = {"bfloat16": bf16, "float16": bf16, "float32": fp32, "int8": int8}
    if fp8 is not None:
        rates["float8_e4m3fn"] = fp8
    return DeviceSheet(
        name=name,
        title=title,
        memory_bytes=memory_mib * MIB,
        bandwidth_bytes_per_s=gb_per_s * GIGA,
        flops_per_s={dtype: rate * TERA for dtype, rate in rates.items()},
        special_functions_per_s=16 * sms * ghz * GIGA,
        # torch's getChosenWorkspaceSize: 4096 KiB × 2 + 16 KiB × 8, or 32 MiB on Hopper
        workspace_bytes=round(workspace_mib * MIB),
        # the CUDA context with torch's kernels is about 0.4 to 0.6 GiB on these cards
        context_bytes=512 * MIB,
    )


SHEETS: dict[str, DeviceSheet] = {
    sheet.name: sheet
    for sheet in (
        # name, title, MiB, GB/s, dense TFLOP/s in bfloat16, float32, int8, float8, multiprocessors, boost GHz
        _gpu("h200", "NVIDIA H200 SXM", 143_771, 4800, 989.4, 66.9, 1978.9, 1978.9, 132, 1.98, 32),
        _gpu("h100", "NVIDIA H100 SXM", 81_559, 3352, 989.4, 66.9, 1978.9, 1978.9, 132, 1.98, 32),
        _gpu("b200", "NVIDIA B200 SXM", 183_359, 8000, 2250, 75, 4500, 4500, 148, 1.965, 32),
        _gpu("a100-80", "NVIDIA A100 SXM 80 GB", 81_920, 2039, 311.9, 19.5, 623.9, None, 108, 1.41),
        _gpu("a100-40", "NVIDIA A100 SXM 40 GB", 40_960, 1555, 311.9, 19.5, 623.9, None, 108, 1.41),
        _gpu("l40s", "NVIDIA L40S", 46_068, 864, 362.1, 91.6, 733, 733, 142, 2.52),
        _gpu("l4", "NVIDIA L4", 23_034, 300, 121, 30.3, 242.5, 242.5, 58, 2.04),
        _gpu("rtx5090", "NVIDIA GeForce RTX 5090", 32_607, 1792, 209.5, 104.8, 838, 419, 170, 2.407),
        _gpu("rtx4090", "NVIDIA GeForce RTX 4090", 24_564, 1008, 165.2, 82.6, 660.6, 330.3, 128, 2.52),
        _gpu("rtx3090", "NVIDIA GeForce RTX 3090", 24_576, 936, 71.2, 35.6, 284, None, 82, 1.695),
        # 304 compute units with four 16-wide SIMDs, and a quarter of their rate for transcendental functions
        _gpu("mi300x", "AMD Instinct MI300X", 196_592, 5300, 1307.4, 163.4, 2614.9, 2614.9, 304, 2.1, 32),
    )
}

ALIASES = {"a100": "a100-80"}


def sheet(name: str) -> DeviceSheet:
    """Return the data sheet of a device. Raises `UserError` for an unknown name."""
    known = ALIASES.get(name.lower(), name.lower())
    if known not in SHEETS:
        raise unknown("GPU", name, SHEETS)
    return SHEETS[known]
