"""A device sheet for this CPU, from measured ceilings."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import psutil
import torch
from torch import nn

from vlmprof.cost.costs import INT4
from vlmprof.cost.devices import DeviceSheet
from vlmprof.cost.dispatch_counter import count_module
from vlmprof.cost.quantized import STAND_INS
from vlmprof.cost.roofline import Efficiency, estimate_stage, measured_device
from vlmprof.environment import cpu_name
from vlmprof.measure.ceilings import (
    ESTIMATE_MEASURE_S,
    cpu_ceilings,
    int4_flops_per_s,
    int8_flops_per_s,
    sustained_s,
)
from vlmprof.settings import LLMPrecision
from vlmprof.vlm.precision import GROUP_SIZE, check_installed
from vlmprof.vlm.quantization import quantize_layer

_SIDE, _TOKENS = 512, 256
"""Size of the layer, and of the prompt, for which int8-dynamic is measured as a whole."""


def measure_this_cpu(
    dtypes: Iterable[str], precisions: Collection[LLMPrecision] = ()
) -> tuple[DeviceSheet, Efficiency]:
    """Measure the ceilings in each dtype (torch names), and those of quantized products and layers; return
    sheet and efficiency. Takes a few seconds.

    Raises `UserError` if a precision needs torchao and it is not installed.
    """
    quantized = [name for name in precisions if name in ("int8-weight", "int8-dynamic", "int4-weight")]
    check_installed(quantized)
    # 16-bit models compute some operations in float32
    wanted = sorted({"float32", *dtypes})
    reached = [cpu_ceilings(getattr(torch, dtype)) for dtype in wanted]
    rates = {r.dtype: r.matmul_flops_per_s for r in reached}
    if "int8-dynamic" in quantized:
        rates["int8"] = int8_flops_per_s()
    if "int4-weight" in quantized:
        rates |= {INT4 + dtype: int4_flops_per_s(getattr(torch, dtype)) for dtype in dtypes}
    sheet, constants = measured_device(
        cpu_name(),
        psutil.virtual_memory().total,
        bandwidth_bytes_per_s=max(r.bandwidth_bytes_per_s for r in reached),
        cache_bytes_per_s=max(r.cache_bytes_per_s for r in reached),
        special_functions_per_s=max(r.special_functions_per_s for r in reached),
        matmul_flops_per_s=rates,
        attention_flops_per_s={r.dtype: r.attention_flops_per_s for r in reached},
        call_s=min(r.call_s for r in reached),
    )
    if "int8-dynamic" in quantized:
        rates["int8"] = min(_int8_rate(getattr(torch, dtype), sheet, constants) for dtype in dtypes)
        sheet = replace(sheet, flops_per_s=rates)
    calls: dict[str, float] = {
        name: _call_s(name, getattr(torch, wanted[0]), sheet, constants) for name in quantized
    }
    return sheet, replace(constants, quantized_call_s=calls)


@torch.inference_mode()
def _int8_rate(dtype: torch.dtype, sheet: DeviceSheet, constants: Efficiency) -> float:
    """Return the rate of int8 products at which a layer of int8-dynamic takes as long as it does, with the
    quantization of its input; at most that of the product alone."""
    layer, counted = (nn.Linear(_SIDE, _SIDE, bias=False, dtype=dtype) for _ in range(2))
    quantize_layer(layer, "int8-dynamic")
    tokens = torch.ones(_TOKENS, _SIDE, dtype=dtype)
    stand_in = STAND_INS["int8-dynamic"](counted.to("meta"), on_cpu=True)
    cost = count_module(stand_in, tokens.to("meta"), kernels="torch")
    product_s = cost.matrix_flops / sheet.rate("int8")
    others_s = estimate_stage(cost, sheet, constants).host_s - product_s
    taken_s = sustained_s(lambda: layer(tokens), measure_s=ESTIMATE_MEASURE_S)
    return cost.matrix_flops / max(product_s, taken_s - others_s)


@torch.inference_mode()
def _call_s(precision: LLMPrecision, dtype: torch.dtype, sheet: DeviceSheet, constants: Efficiency) -> float:
    """Measure how much longer than its operations a small quantized layer takes, beside a plain one."""
    plain, layer, counted = (nn.Linear(GROUP_SIZE, GROUP_SIZE, bias=False, dtype=dtype) for _ in range(3))
    quantize_layer(layer, precision)

    def excess_s(run: nn.Module, count: nn.Module) -> float:
        token = torch.ones(1, GROUP_SIZE, dtype=dtype)
        cost = count_module(count.to("meta"), token.to("meta"), kernels="torch")
        taken_s = sustained_s(lambda: run(token), measure_s=ESTIMATE_MEASURE_S)
        return taken_s - estimate_stage(cost, sheet, constants).host_s

    quantized_s = excess_s(layer, STAND_INS[precision](counted, on_cpu=True))
    return max(0.0, quantized_s - max(0.0, excess_s(plain, counted)))
