"""Costs of the scans against the reference implementation, operation by operation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vlmprof.backbones import create_backbone
from vlmprof.cost import Kind, StageCost, count_module
from vlmprof.cost.formulas import FORMULAS
from vlmprof.cost.scans import KERNELS, is_scan
from vlmprof.kernels import cross_merge, cross_scan, selective_scan, ss2d
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.ss2d.reference import ss2d_reference

META = torch.device("meta")


class Results(TorchDispatchMode):
    """Counts results by operator name, from shapes of a computation that really runs."""

    def __init__(self) -> None:
        super().__init__()
        self.results: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.results[func.overloadpacket.__name__] += output.numel()
        return output


def ss2d_inputs(d_inner: int, dt_rank: int, d_state: int, device: torch.device) -> list[Tensor]:
    shapes = [
        (2, 5, 7, d_inner), (4, dt_rank + 2 * d_state, d_inner), (4, d_inner, dt_rank), (4, d_inner),
        (4 * d_inner, d_state), (4 * d_inner,),
    ]  # fmt: skip
    return [torch.zeros(shape, device=device) for shape in shapes]


def cost_of(call: Any, *inputs: Tensor, kernels: Any = "published") -> StageCost:
    return count_module(torch.nn.Identity(), list(inputs), call=call, kernels=kernels)


@pytest.mark.parametrize("d_state", [1, 4])
def test_special_functions_are_those_the_reference_evaluates(d_state: int) -> None:
    x, *parameters = ss2d_inputs(8, 3, d_state, torch.device("cpu"))
    with torch.inference_mode(), Results() as ran:
        ss2d_reference(x, Parameters(*parameters))
    decays = ran.results["exp"] - 4 * 8 * d_state  # A = −exp(A_logs) is once per parameter
    expected = decays + 2 * ran.results["softplus"]
    counted = cost_of(ss2d, *ss2d_inputs(8, 3, d_state, META))
    assert counted.special_functions == expected
    assert (
        cost_of(ss2d, *ss2d_inputs(8, 3, d_state, META), kernels="triton").special_functions == 2 * expected
    )


def test_flops_do_not_depend_on_who_computes_them() -> None:
    inputs = ss2d_inputs(8, 3, 1, META)
    costs = {kernels: cost_of(ss2d, *inputs, kernels=kernels) for kernels in KERNELS}
    assert len({cost.flops for cost in costs.values()}) == 1
    pixels, scanned = 2 * 5 * 7, 2 * 5 * 7 * 4 * 8
    projections = 2 * pixels * 8 * 4 * 5 + 2 * scanned * 3
    assert costs["triton"].flops == projections + 13 * scanned + 3 * pixels * 8
    assert costs["triton"].by_kind().keys() == {Kind.FUSED_SCAN}


def test_ours_moves_less_and_keeps_less_than_the_published_kernels() -> None:
    large = [
        torch.empty(1, 256, 256, 192, device=META, dtype=torch.bfloat16),
        *ss2d_inputs(192, 6, 1, META)[1:],
    ]
    ours = cost_of(ss2d, *large, kernels="triton")
    published = cost_of(ss2d, *large, kernels="published")
    assert ours.moved_bytes < published.moved_bytes / 2
    assert ours.peak_activation_bytes < published.peak_activation_bytes / 3
    assert ours.moved_bytes > 2 * large[0].numel() * 2


@pytest.mark.parametrize(("name", "launches"), [("vmamba-t", 322), ("vmamba-s", 602)])
def test_the_published_network_launches_as_often_as_was_counted_on_it(name: str, launches: int) -> None:
    module = create_backbone(name, image_size=(224, 224), levels="all", device=META, dtype=torch.bfloat16)
    images = torch.empty(1, 3, 224, 224, device=META, dtype=torch.bfloat16)
    assert count_module(module, images, kernels="published").kernels == pytest.approx(launches, abs=2)


def test_a_selective_scan_of_its_own() -> None:
    batch, d_inner, length, d_state = 2, 6, 50, 3
    u, delta = (torch.empty(batch, d_inner, length, device=META) for _ in range(2))
    A = torch.empty(d_inner, d_state, device=META)
    B, C = (torch.empty(batch, 1, d_state, length, device=META) for _ in range(2))
    cost = cost_of(
        lambda u, delta, A, B, C: selective_scan(u, delta, A, B, C, delta_softplus=True), u, delta, A, B, C
    )
    positions = batch * d_inner * length
    assert cost.special_functions == positions * (d_state + 2)
    assert cost.flops == positions * (7 * d_state + 6)
    assert cost.moved_bytes == 4 * (3 * positions + d_inner * d_state + 2 * batch * d_state * length)


def test_crossing_reads_one_image_and_writes_four() -> None:
    x = torch.empty(1, 8, 6, 10, device=META, dtype=torch.float16)
    assert cost_of(cross_scan, x).moved_bytes == 5 * x.numel() * 2
    ys = torch.empty(1, 4, 8, 60, device=META, dtype=torch.float16)
    merged = cost_of(lambda y: cross_merge(y, 6, 10), ys)
    assert (merged.moved_bytes, merged.flops) == (5 * x.numel() * 2, 3 * x.numel())


def test_every_registered_operator_has_a_formula() -> None:
    schemas = torch._C._jit_get_all_schemas()
    names = {
        schema.name.removeprefix("vlmprof::") for schema in schemas if schema.name.startswith("vlmprof::")
    }
    assert "ss2d" in names
    packets = [getattr(torch.ops.vlmprof, name) for name in sorted(names)]
    assert [packet for packet in packets if packet not in FORMULAS and not is_scan(packet.default)] == []
