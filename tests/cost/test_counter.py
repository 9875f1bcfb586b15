"""Counted FLOPs against torch's own counter and closed formulas; weights against the catalogs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmprof.backbones import create_backbone, facts, names
from vlmprof.cost import Kind, count_module
from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.settings import StageName
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_catalog import facts as llm_facts
from vlmprof.vlm.workload import Workload

META = torch.device("meta")
ONE_OF_EACH_FAMILY = list({facts(name).family: name for name in reversed(names())}.values())


def torch_counts(call: Callable[..., object], *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_matrix_flops_are_those_of_torchs_counter(name: str) -> None:
    extra = facts(name).extra
    if extra is not None:
        pytest.importorskip(extra)
    height, width = facts(name).nearest(224, 352)[-1]
    module = create_backbone(name, image_size=(height, width), device=META, dtype=torch.bfloat16)
    images = torch.empty(2, 3, height, width, device=META, dtype=torch.bfloat16)
    assert count_module(module, images).matrix_flops == torch_counts(module, images)


@pytest.mark.parametrize("name", ["vit-t", "vmamba-t", "vmamba-t-v0", "vitdet-b", "mambavision-t"])
def test_weights_are_those_of_the_catalog(name: str) -> None:
    side = facts(name).nearest(224, 224)[-1][0]
    module = create_backbone(
        name, image_size=(side, side), device=META, dtype=torch.float32, levels="all", classifier=True
    )
    buffers = sum(b.numel() * b.element_size() for b in module.buffers())
    counted = count_module(module, torch.empty(1, 3, side, side, device=META)).weight_bytes
    assert counted - buffers == 4 * (facts(name).parameters or 0)


def forward_of(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda embeddings: model(inputs_embeds=embeddings, use_cache=False).logits


@pytest.mark.parametrize("tokens", [5, 97, 640])
def test_a_language_model_agrees_with_torchs_counter(tokens: int) -> None:
    module = create_llm("llama-23m", device=META)
    embeddings = torch.empty(2, tokens, 384, device=META)
    counted = count_module(module, embeddings, call=forward_of(module))
    # torch's counter needs values where masks are looked at, and does not know the CPU's flash kernel
    real = create_llm("llama-23m")
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch_counts(forward_of(real), torch.zeros(2, tokens, 384))
    assert counted.matrix_flops == expected
    assert counted.weight_bytes == pytest.approx(4 * (llm_facts("llama-23m").parameters or 0), rel=1e-4)


def test_a_vit_costs_what_its_formula_says() -> None:
    height, width, d, depth = 224, 320, 192, 12
    n, patches = 14 * 20 + 1, 14 * 20
    cost = count(Workload("vit-t", "llama-23m", height, width, stages=("vision",))).stages["vision"]
    kinds = cost.by_kind()
    assert kinds[Kind.CONVOLUTION].flops == 2 * patches * 3 * 16 * 16 * d
    assert kinds[Kind.MATMUL].flops == depth * 2 * n * (3 * d * d + d * d + 8 * d * d)
    assert kinds[Kind.ATTENTION].flops == depth * 4 * n * n * d
    assert kinds[Kind.ATTENTION].kernels == depth
    assert cost.skipped_flops == 0


def test_a_connector_costs_its_two_matrices() -> None:
    joint = create_connector("mlp2", 192, 384, device=META)
    cost = count_module(joint, torch.empty(1, 100, 192, device=META))
    assert cost.matrix_flops == 2 * 100 * (192 * 384 + 384 * 384)
    assert cost.least_bytes == 4 * (192 * 384 + 384 + 384 * 384 + 384 + 100 * 192 + 100 * 384)
    assert cost.special_functions == 100 * 384
    assert cost.kernels == 3


def test_causal_attention_counts_whole_and_says_what_a_kernel_skips() -> None:
    q = torch.empty(2, 3, 50, 64, device=META)
    cost = count_module(
        nn.Identity(), q, call=lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)
    )
    assert cost.flops == 2 * 3 * 4 * 50 * 50 * 64
    assert cost.skipped_flops == 2 * 3 * 4 * (50 * 49 // 2) * 64


def test_math_attention_holds_its_scores_and_fused_attention_does_not() -> None:
    tokens = 400
    q = torch.empty(1, 4, tokens, 32, device=META)

    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    fused = count_module(nn.Identity(), q, call=attend)
    math = count_module(nn.Identity(), q, call=attend, attention="math")
    scores = 4 * 4 * tokens * tokens
    assert fused.matrix_flops == math.matrix_flops
    assert fused.kernels == 1 < math.kernels
    assert fused.peak_activation_bytes < scores <= math.peak_activation_bytes
    wide = torch.empty(1, 1, 8, 512, device=META)
    assert count_module(nn.Identity(), wide, call=attend).kernels > 1


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 12, (3, 5), stride=2, padding=1, groups=3), (2, 6, 17, 13)),
        (nn.ConvTranspose2d(6, 12, 3, stride=2, groups=2), (2, 6, 7, 5)),
        (nn.Conv1d(4, 4, 7, padding=3, groups=4, dilation=1), (3, 4, 31)),
    ],
)
def test_convolutions_of_every_kind(layer: nn.Module, shape: tuple[int, ...]) -> None:
    images = torch.empty(shape, device=META)
    # torch's counter takes a transposed or grouped convolution by its weight's shape, as is done here
    assert count_module(layer.to(META), images).matrix_flops == torch_counts(layer, images)


def test_a_convolution_keeps_channels_last() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, device=META)
    images = torch.empty(1, 9, 11, 8, device=META)

    def convolve(x: Tensor) -> Tensor:
        return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()

    assert count_module(layer, images, call=convolve).kernels == 1


@pytest.mark.parametrize(("mode", "dims"), [("bicubic", 2), ("bilinear", 2), ("linear", 1), ("nearest", 2)])
def test_a_resize_is_one_kernel(mode: str, dims: int) -> None:
    images = torch.empty(1, 3, *(8,) * dims, device=META)
    cost = count_module(nn.Identity(), images, call=lambda x: F.interpolate(x, scale_factor=2.0, mode=mode))
    assert cost.kernels == 1
    assert cost.moved_bytes == 4 * 3 * (8**dims + 16**dims)


def test_views_and_allocations_launch_nothing() -> None:
    def look(x: Tensor) -> Tensor:
        torch.empty_like(x)
        return x.view(-1, 4).t().unsqueeze(0)[:, 1:].expand(3, -1, -1)

    assert count_module(nn.Identity(), torch.empty(8, 8, device=META), call=look).kernels == 0


def test_bytes_are_read_once_and_written_once() -> None:
    x = torch.empty(100, 10, device=META)
    added = count_module(nn.Identity(), x, call=lambda x: x + 1)
    assert added.moved_bytes == 2 * 4000
    doubled = count_module(nn.Identity(), x, call=lambda x: x + x)
    assert doubled.moved_bytes == 2 * 4000
    table = nn.Embedding(5000, 10, device=META)
    ids = torch.zeros(7, dtype=torch.long, device=META)
    assert count_module(table, ids).moved_bytes == 7 * 8 + 2 * 7 * 40


def test_a_large_model_is_counted_without_its_weights() -> None:
    cost = count(Workload("vit-l", "vicuna-7b", 6144, 6144, dtype="bfloat16"))
    assert cost.weight_bytes > 14e9
    tokens = 384 * 384
    layers, hidden, mlp = 32, 4096, 11008
    linear = layers * (4 * hidden * hidden + 3 * hidden * mlp) + hidden * 32000
    attention = layers * 4 * tokens * tokens * hidden
    expected = 2 * tokens * linear + attention
    assert cost.stages["prefill"].matrix_flops in (expected, expected + rotary_flops(tokens, 128))


def test_decoding_reads_every_weight_and_the_cache_for_each_token() -> None:
    stages: tuple[StageName, ...] = ("vision", "connector", "prefill", "decode")
    cost = count(
        Workload(
            "vit-t", "llama-23m", 224, 224, dtype="float32", stages=stages, prompt_tokens=60, new_tokens=5
        )
    )
    decode = cost.stages["decode"]
    assert decode.kv_cache_bytes == 2 * 6 * 384 * 4 * (196 + 60)
    # each of six layers replaces its part of the cache by a longer one
    assert 1 < decode.peak_activation_bytes / decode.kv_cache_bytes < 1 + 1 / 6 + 0.05
    per_token = decode.moved_bytes / 5
    assert per_token > decode.weight_bytes + decode.kv_cache_bytes
    one_step = count_one_step(196 + 60)
    assert decode.matrix_flops in (5 * one_step, 5 * (one_step + rotary_flops(1, 64)))
    assert cost.weight_bytes == sum(cost.stages[s].weight_bytes for s in ("vision", "connector", "prefill"))


def rotary_flops(tokens: int, head_dim: int) -> int:
    """FLOPs of the product of positions and frequencies, which later versions of transformers multiply
    elementwise."""
    return 2 * tokens * head_dim // 2


def count_one_step(context: int) -> int:
    """FLOPs of one token of `llama-23m` after so many: its matrices, and attention over all of them."""
    layers, hidden, mlp, vocabulary = 6, 384, 1024, 32000
    matrices = layers * (4 * hidden * hidden + 3 * hidden * mlp) + hidden * vocabulary
    return 2 * matrices + layers * 4 * (context + 1) * hidden


def test_what_reads_values_cannot_be_counted() -> None:
    with pytest.raises(UserError, match="cannot be counted"):
        count_module(nn.Identity(), torch.empty(3, device=META), call=lambda x: x * x.sum().item())
