"""A device sheet for this CPU, from measured ceilings."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import psutil
import torch

from vlmprof.cost.devices import DeviceSheet
from vlmprof.cost.roofline import Efficiency, measured_device
from vlmprof.environment import cpu_name
from vlmprof.measure.ceilings import cpu_ceilings, int8_flops_per_s
from vlmprof.settings import LLMPrecision


def measure_this_cpu(
    dtypes: Iterable[str], precisions: Collection[LLMPrecision] = ()
) -> tuple[DeviceSheet, Efficiency]:
    """Measure the ceilings in each dtype (torch names), and in int8 if it is multiplied; return sheet and
    efficiency. Takes a few seconds."""
    # 16-bit models compute some operations in float32
    reached = [cpu_ceilings(getattr(torch, dtype)) for dtype in sorted({"float32", *dtypes})]
    int8 = {"int8": int8_flops_per_s()} if "int8-dynamic" in precisions else {}
    return measured_device(
        cpu_name(),
        psutil.virtual_memory().total,
        bandwidth_bytes_per_s=max(r.bandwidth_bytes_per_s for r in reached),
        cache_bytes_per_s=max(r.cache_bytes_per_s for r in reached),
        special_functions_per_s=max(r.special_functions_per_s for r in reached),
        matmul_flops_per_s={r.dtype: r.matmul_flops_per_s for r in reached} | int8,
        attention_flops_per_s={r.dtype: r.attention_flops_per_s for r in reached},
        call_s=min(r.call_s for r in reached),
    )
