"""Counted peaks against every allocation that a real run makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vlmprof.backbones import create_backbone
from vlmprof.cost import count_module
from vlmprof.cost.count import count
from vlmprof.cost.liveness import LiveMemory, in_blocks
from vlmprof.settings import Outputs
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.workload import Workload


def allocations(events: Any) -> Iterator[tuple[int, int]]:
    """(when, bytes) of every allocation, and of every release as a negative."""
    for event in events:
        if event.tag.name == "Allocation":
            yield event.start_time_ns, event.extra_fields.alloc_size
        yield from allocations(event.children)


def traced_peak_bytes(call: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Most bytes allocated at once during a call on the CPU, its output included, its inputs not."""
    with torch.inference_mode():
        call(*inputs)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            output = call(*inputs)
    live = peak = 0
    for _, size in sorted(allocations(trace.profiler.kineto_results.experimental_event_tree())):
        live += size
        peak = max(peak, live)
    del output
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "height", "width", "off_by"),
    [
        ("vit-t", 224, 320, 0.001),
        ("vit-s", 384, 384, 0.001),
        pytest.param("vitdet-b", 256, 256, 0.001, marks=pytest.mark.slow),
        # the scan's own temporaries are counted by a formula
        ("vmamba-t", 224, 224, 0.06),
        ("vmamba-t", 320, 416, 0.03),
        pytest.param("vmamba-t-v0", 224, 224, 0.05, marks=pytest.mark.slow),
        ("mambavision-t", 224, 224, 0.12),
    ],
)
def test_a_backbones_peak(name: str, height: int, width: int, off_by: float) -> None:
    images = torch.zeros(1, 3, height, width)
    traced = traced_peak_bytes(create_backbone(name, image_size=(height, width)), images)
    module = create_backbone(name, image_size=(height, width), device="meta")
    cost = count_module(module, images.to("meta"), kernels="torch")
    assert cost.peak_activation_bytes - cost.input_bytes == pytest.approx(traced, rel=off_by)


@pytest.mark.parametrize(("side", "folded_levels"), [(448, 3), (224, 2)])
def test_what_kernels_keep_of_parameters_is_resident(side: int, folded_levels: int) -> None:
    module = create_backbone("vmamba-t", image_size=(side, side), kernels="triton", device="meta")
    images = torch.zeros(1, 3, side, side, device="meta")
    cost = count_module(module, images, kernels="triton")
    with torch.inference_mode():
        again = count_module(module, images, call=lambda x: (module(x), module(x))[1], kernels="triton")
    assert again.resident_bytes == cost.resident_bytes
    # weights after norms, float32: in_proj and out_proj (d, 2 d), fc1 (d, 4 d), where there are pixels enough
    folded = sum(4 * blocks * 8 * d**2 for blocks, d in ((2, 96), (2, 192), (5, 384))[:folded_levels])
    # x_proj in blocks of a multiple of 8 rows, dt_proj with a rank of a power of two
    packed = sum(
        4 * blocks * 4 * 2 * d * ((d // 16 + 2 + 7) // 8 * 8 + max(16, 1 << (d // 16 - 1).bit_length()))
        for blocks, d in ((2, 96), (2, 192), (5, 384))
    )
    kept = cost.resident_bytes - module_bytes(module)
    # beside them vectors: biases, decays, sums of rows, and the small filters
    assert folded + packed < kept < 1.1 * (folded + packed)


def module_bytes(module: torch.nn.Module) -> int:
    return sum(in_blocks(t.numel() * t.element_size()) for t in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("tokens", [196, 700])
def test_a_language_models_peak(tokens: int) -> None:
    def forward(model: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: model(inputs_embeds=x, use_cache=False).logits

    embeddings = torch.zeros(1, tokens, 384)
    traced = traced_peak_bytes(forward(create_llm("llama-23m")), embeddings)
    module = create_llm("llama-23m", device="meta")
    cost = count_module(module, embeddings.to("meta"), call=forward(module))
    assert cost.peak_activation_bytes - cost.input_bytes == pytest.approx(traced, rel=0.001)


def test_a_storage_counts_once_and_until_its_last_view_is_gone() -> None:
    memory = LiveMemory()
    whole = torch.empty(1000, device="meta")
    memory.hold([whole, whole.view(10, 100), whole[3:5]])
    assert memory.live_bytes == 4096
    view = whole[:7]
    del whole
    assert memory.live_bytes == 4096
    del view
    assert (memory.live_bytes, memory.peak_bytes) == (0, 4096)


def test_allocations_come_in_blocks() -> None:
    assert [in_blocks(size) for size in (0, 1, 512, 513)] == [0, 512, 512, 1024]


def test_the_iterations_own_images_are_held_where_nothing_preprocesses() -> None:
    with_them = count(Workload("vit-t", "llama-23m", 224, 224, stages=("vision", "connector", "prefill")))
    without = count(
        Workload("vit-t", "llama-23m", 224, 224, stages=("preprocess", "vision", "connector", "prefill"))
    )
    images = 3 * 224 * 224 * 2
    assert with_them.stage_peak_bytes("prefill") - without.stage_peak_bytes("prefill") == images
    assert with_them.stage_peak_bytes("vision") == without.stage_peak_bytes("vision")
    assert with_them.peak_allocated_bytes == with_them.stage_peak_bytes("prefill")


def test_the_output_of_the_iteration_before_is_held_where_it_is_kept() -> None:
    freed, kept = (
        count(Workload("vit-t", "llama-23m", 224, 320, outputs=name)) for name in ("freed", "kept")
    )
    logits = 14 * 20 * 32000 * 2
    for stage in ("vision", "connector", "prefill"):
        assert kept.stage_peak_bytes(stage) - freed.stage_peak_bytes(stage) == logits


@pytest.mark.parametrize("outputs", ["freed", "kept"])
def test_preprocessing_alone_has_nothing_to_count(outputs: Outputs) -> None:
    assert not count(Workload("vit-t", "llama-23m", 64, 64, stages=("preprocess",), outputs=outputs)).stages
