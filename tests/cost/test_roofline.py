"""The roofline: which ceiling holds when, on which device, in which mode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmprof.cost import CellCost, Kind, OpCost, StageCost
from vlmprof.cost.devices import SHEETS, sheet
from vlmprof.cost.roofline import (
    Efficiency,
    estimate,
    estimate_stage,
    measured_device,
    op_seconds,
)
from vlmprof.errors import UserError

H200 = sheet("h200")
IDEAL = Efficiency(
    matmul=1, attention=1, bandwidth=1, scan=1, fused_scan=1, kernel_s=1e-9, host_s_per_kernel=1e-5,
    queued_kernels=100,
)  # fmt: skip


def test_the_nearest_ceiling_holds() -> None:
    compute = OpCost(Kind.MATMUL, "bfloat16", flops=10**12, moved_bytes=10**6)
    memory = OpCost(Kind.MATMUL, "bfloat16", flops=10**6, moved_bytes=10**9)
    special = OpCost(Kind.ELEMENTWISE, "bfloat16", moved_bytes=8, special_functions=10**9)
    tiny = OpCost(Kind.COPY, "bfloat16", moved_bytes=8, kernels=3)
    assert op_seconds(compute, H200, IDEAL) == pytest.approx(1e12 / 989.4e12)
    assert op_seconds(memory, H200, IDEAL) == pytest.approx(1e9 / 4.8e12)
    assert op_seconds(special, H200, IDEAL) == pytest.approx(1e9 / (16 * 132 * 1.98e9))
    assert op_seconds(tiny, H200, IDEAL) == pytest.approx(3e-9)


def test_efficiencies_divide_their_own_ceiling_only() -> None:
    half = Efficiency(matmul=0.5, attention=0.25, bandwidth=0.5, scan=0.1, fused_scan=0.2, kernel_s=0)
    flops = 10**12
    dense_s = flops / 989.4e12
    assert op_seconds(OpCost(Kind.CONVOLUTION, "float16", flops=flops), H200, half) == pytest.approx(
        2 * dense_s
    )
    causal = OpCost(Kind.ATTENTION, "float16", flops=flops, skipped_flops=flops // 2)
    assert op_seconds(causal, H200, half) == pytest.approx(4 * dense_s / 2)
    scan = OpCost(Kind.SCAN, "float16", moved_bytes=48 * 10**8)
    assert op_seconds(scan, H200, half) == pytest.approx(1e-2)
    fused = OpCost(Kind.FUSED_SCAN, "float16", moved_bytes=48 * 10**8)
    assert op_seconds(fused, H200, half) == pytest.approx(5e-3)


def test_float32_products_do_not_use_tensor_cores() -> None:
    product = OpCost(Kind.MATMUL, "float32", flops=10**12)
    assert op_seconds(product, H200, IDEAL) == pytest.approx(1e12 / 66.9e12)
    with pytest.raises(UserError, match="float64"):
        op_seconds(OpCost(Kind.MATMUL, "float64", flops=1), H200, IDEAL)


def test_small_work_is_launch_bound_and_a_full_queue_makes_the_host_wait() -> None:
    small = StageCost(ops={OpCost(Kind.COPY, "bfloat16", moved_bytes=48): 50})
    launched = estimate_stage(small, H200, IDEAL)
    assert launched.launch_bound
    assert launched.host_s == launched.gpu_s == pytest.approx(50 * 1e-5)
    large = StageCost(ops={OpCost(Kind.COPY, "bfloat16", moved_bytes=48 * 10**8): 200})
    busy = estimate_stage(large, H200, IDEAL)
    assert not busy.launch_bound
    assert busy.gpu_s == pytest.approx(200 * 1e-3)
    assert busy.host_s == pytest.approx(100 * 1e-3), "the last hundred launches wait for nobody"


def test_a_graph_is_one_launch() -> None:
    ops = {OpCost(Kind.COPY, "bfloat16", moved_bytes=48): 50}
    cost = CellCost({"vision": StageCost(ops=ops), "decode": StageCost(ops=ops)}, visual_tokens=4)
    graphed = estimate(cost, H200, IDEAL, mode="graphs").stages
    assert graphed["vision"].host_s == pytest.approx(1e-5)
    assert graphed["decode"].host_s == pytest.approx(50e-5)


def test_a_cpu_works_while_it_launches() -> None:
    cpu, constants = measured_device(
        "a CPU",
        2**34,
        bandwidth_bytes_per_s=1e10,
        cache_bytes_per_s=4e10,
        special_functions_per_s=1e9,
        matmul_flops_per_s={"float32": 1e11, "bfloat16": 1e11},
        attention_flops_per_s={"float32": 5e10, "bfloat16": 1e11},
        call_s=1e-6,
    )
    assert constants.attention == pytest.approx(0.75)
    cost = StageCost(ops={OpCost(Kind.MATMUL, "float32", flops=10**9): 3})
    stage = estimate_stage(cost, cpu, constants)
    assert stage.gpu_s is None
    assert stage.latency_s == stage.host_s == pytest.approx(3 * (1e-2 + 1e-6))


def test_a_cpu_has_its_own_rates_of_quantized_layers() -> None:
    """Products with int4 have a rate of their own, and torchao's Python takes time in every layer."""
    cpu = replace(H200, synchronous=True, flops_per_s={"float32": 1e11, "int4 float32": 1e9})
    product = OpCost(Kind.MATMUL, "int4 float32", flops=10**9)
    assert op_seconds(product, cpu, IDEAL) == pytest.approx(1)
    assert op_seconds(product, H200, IDEAL) == op_seconds(replace(product, dtype="float32"), H200, IDEAL)
    stage = StageCost(ops={OpCost(Kind.QUANTIZED_CALL, "int8-dynamic", kernels=0): 42})
    assert estimate_stage(stage, cpu, IDEAL).host_s == 0
    measured = replace(IDEAL, quantized_call_s={"int8-dynamic": 1e-4})
    assert estimate_stage(stage, cpu, measured).host_s == pytest.approx(42e-4)


def test_working_tensors_go_to_the_cache_where_there_is_one() -> None:
    scan = StageCost(ops={OpCost(Kind.SCAN, "float16", moved_bytes=48 * 10**8, scratch_bytes=480 * 10**8): 1})
    without = estimate_stage(scan, H200, IDEAL).busy_s
    assert without == pytest.approx(528 * 10**8 / H200.bandwidth_bytes_per_s)
    cached = replace(H200, cache_bytes_per_s=10 * H200.bandwidth_bytes_per_s)
    assert estimate_stage(scan, cached, IDEAL).busy_s == pytest.approx(2 * 48e8 / H200.bandwidth_bytes_per_s)


def test_memory_counts_against_the_budget_or_the_card() -> None:
    cost = CellCost(
        {"vision": StageCost(resident_bytes=20 * 2**30, peak_activation_bytes=2**30)}, visual_tokens=1
    )
    on_card = estimate(cost, sheet("rtx4090"))
    assert on_card.peak_allocated_bytes == 21 * 2**30 + round(8.125 * 2**20)
    assert on_card.memory_bytes == 24564 * 2**20 - 512 * 2**20
    assert on_card.fits
    assert estimate(cost, H200, memory_limit_bytes=21 * 2**30).oom_stage == "vision"
    assert estimate(cost, H200, memory_limit_bytes=20 * 2**30).oom_stage == "build"


def test_memory_runs_out_in_the_first_stage_that_it_does_not_hold() -> None:
    stages = {
        name: StageCost(resident_bytes=100, peak_activation_bytes=peak)
        for name, peak in {"vision": 50, "connector": 10, "prefill": 70}.items()
    }
    cost = CellCost(stages, visual_tokens=1)
    found = [cost.oom_stage(room) for room in (299, 349, 350, 369, 370)]
    assert found == ["build", "vision", "prefill", "prefill", None]


def test_sheets_are_complete_and_in_proportion() -> None:
    for name, one in SHEETS.items():
        assert one.name == name
        assert one.rate("bfloat16") == one.rate("float16") > one.rate("float32") > 1e13
        assert 20 * 2**30 < one.memory_bytes < 200 * 2**30
        # between a gaming card's and HBM's balance of bytes and FLOPs
        assert 70 < one.rate("bfloat16") / one.bandwidth_bytes_per_s < 450
        # each halving of the bits doubles the rate, and more so on gaming cards
        assert 1.99 < one.rate("int8") / one.rate("bfloat16") < 4.01
        if "float8_e4m3fn" in one.flops_per_s:
            assert 1.99 < one.rate("float8_e4m3fn") / one.rate("bfloat16") < 2.03
    assert sheet("H100").rate("bfloat16") == H200.rate("bfloat16")
    assert sheet("a100") is sheet("a100-80")
    with pytest.raises(UserError, match="A100 SXM 80 GB has no rate for float8_e4m3fn"):
        sheet("a100").rate("float8_e4m3fn")
    with pytest.raises(UserError, match="rtx4090"):
        sheet("rtx4091")
