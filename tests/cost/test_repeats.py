"""Looking up what was counted before against counting in full, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmprof.backbones import facts, names
from vlmprof.cost.costs import CellCost, StageCost
from vlmprof.cost.count import count
from vlmprof.cost.dispatch_counter import CostCounter, count_module
from vlmprof.cost.scans import KERNELS
from vlmprof.vlm.llm_catalog import names as llm_names
from vlmprof.vlm.workload import Workload

META = torch.device("meta")
ONE_OF_EACH_FAMILY = list({facts(name).family: name for name in reversed(names())}.values())
SIZES = ((224, 224), (333, 517), (224, 224), (96, 160))
"""A size again after another one, and some that are odd and not square."""


def everything(cost: CellCost) -> Any:
    """Of a cost, the order of its operations too: sums of floats depend on it."""
    stages = {name: (stage, list(stage.ops.items())) for name, stage in cost.stages.items()}
    return stages, cost.visual_tokens, cost.held_bytes


SMALL = "llama-23m"
QUICK = ("vit", "vmamba", "siglip2", "swin")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        if name.startswith(QUICK) and "adapter" not in name
        else pytest.param(name, marks=pytest.mark.slow)
        for name in ONE_OF_EACH_FAMILY
    ],
)
def test_every_family_costs_what_counting_in_full_says(name: str) -> None:
    extra = facts(name).extra
    if extra is not None:
        pytest.importorskip(extra)
    for i, size in enumerate(SIZES):
        height, width = facts(name).padded(*size)
        kernels: Any = KERNELS[(i + len(name)) % 3]

        def cost(in_full: bool, size: tuple[int, int], i: int, kernels: Any) -> Any:
            return everything(
                count(Workload(
                    name, "llama-23m", *size, stages=("vision", "connector"),
                    levels=("through-tap", "all")[i % 2], attention=("auto", "math")[i % 2], outputs="kept"
                ), kernels=kernels, in_full=in_full)
            )  # fmt: skip

        if name.startswith("dinov3"):  # transformers itself keeps positions of a size, for the whole process
            cost(True, (height, width), i, kernels)
        assert cost(False, (height, width), i, kernels) == cost(True, (height, width), i, kernels)
        if facts(name).nearest(64, 64) == facts(name).nearest(512, 512):
            return  # it takes one size alone


@pytest.mark.slow
@pytest.mark.parametrize("llm", [name for name in llm_names() if name != SMALL])
def test_every_language_model_costs_what_counting_in_full_says(llm: str) -> None:
    for stages in (("vision", "connector", "prefill"), ("vision", "connector", "prefill", "decode")):
        costs = [
            count(Workload(
                # few tokens: recurrent models are counted in full step by step
                "vit-t", llm, 32, 48, stages=stages, new_tokens=2, prompt_tokens=5, batch_size=2,
                logits="last"
            ), in_full=in_full)
            for in_full in (False, True)
        ]  # fmt: skip
        assert everything(costs[0]) == everything(costs[1])


def test_a_small_language_model_does_so_too() -> None:
    test_every_language_model_costs_what_counting_in_full_says(SMALL)


def test_equal_layers_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out = []
    real = CostCounter._counted

    def listening(self: CostCounter, func: Any, args: Any, kwargs: Any) -> Any:
        worked_out.append(func)
        return real(self, func, args, kwargs)

    monkeypatch.setattr(CostCounter, "_counted", listening)
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(37, 37), nn.LayerNorm(37), nn.SiLU()) for _ in range(9)))
    layers = layers.to(META)
    cost = count_module(layers, torch.empty(2, 3, 37, device=META))
    once = len(worked_out)
    assert cost == count_module(layers, torch.empty(2, 3, 37, device=META), in_full=True)
    assert once <= (len(worked_out) - once) / 9


def added(parts: Sequence[Tensor]) -> Tensor:
    total = 0 + parts[0]
    for part in parts[1:]:
        total = total + part
    return total


SHARED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the same tensor twice": lambda x, y: (x + y) + (x + x),
    "a view of the same storage": lambda x, y: (x + y[0]) + (y[0] + y[0]) + (y[0] + y[1]),
    "scalars that are equal": lambda x, y: (x.long() * 2) + (x.long() * 2.0) + (x.long() * True),
    "in place": lambda x, y: (x + 1).mul_(2).add_(x + 1).mul_(2),
    "a changed layout": lambda x, y: (x + 1).unsqueeze_(0).squeeze_(0).t_().contiguous() + (x + 1).t_(),
    "several results": lambda x, y: added(x.chunk(3)) + added(x.chunk(3)) + added(y[0].split(1)),
    "keyword arguments": lambda x, y: x.sum(dim=1, keepdim=True) + x.sum(dim=0, keepdim=True) + x.sum(),
    "indices made on the host": lambda x, y: (
        x[torch.arange(6).flip(0)] + x[torch.arange(6).flip(0)] + x[torch.arange(6)[::2].repeat(2)]
    ),
    "sizes that depend on values": lambda x, y: (
        x
        + torch.arange(99)[torch.arange(99) > 7].float().exp().sum()
        + torch.arange(99)[torch.arange(99) > 70].float().exp().sum()
    ),
    "in place on the host": lambda x, y: (
        x[torch.zeros(6).add_(1).mul_(2).long()] + x[torch.zeros(6).add_(1).mul_(2).long()]
    ),
    "results that stay": lambda x, y: torch.stack([x.exp() for _ in range(4)]).sum(0) + x.exp(),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_a_key_must_tell_apart(name: str) -> None:
    def cost(in_full: bool) -> StageCost:
        x, y = torch.empty(6, 6, device=META), torch.empty(2, 6, 6, device=META)
        return count_module(nn.Identity(), [x, y], call=SHARED[name], in_full=in_full)

    looked_up, again, in_full = cost(False), cost(False), cost(True)
    assert list(looked_up.ops.items()) == list(in_full.ops.items())
    assert looked_up == again == in_full


def test_a_changed_default_dtype_is_noticed() -> None:
    def halved(x: Tensor) -> Tensor:
        return x / 2

    counts = torch.empty(1000, device=META, dtype=torch.int32)
    single = count_module(nn.Identity(), counts, call=halved)
    torch.set_default_dtype(torch.float64)
    try:
        double = count_module(nn.Identity(), counts, call=halved)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (single.output_bytes, double.output_bytes) == (4000, 8000)
