"""Connectors: their shapes, parameters and counted FLOPs by hand, and the modules that they follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from transformers import Idefics2Config, Idefics3Config, InternVLConfig, LlavaNextVideoConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector
from transformers.models.llava_next_video.modeling_llava_next_video import (
    LlavaNextVideoMultiModalProjector,
    LlavaNextVideoPooler,
)

from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.vlm.c_abstractor import Block
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.connector_catalog import Grid, facts, names
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.workload import Workload

V, H, MLP = 48, 64, 160
"""Channels of the encoder's tokens and of the LLM's, and the width of the LLM's MLP."""
W = 1024
"""Channels inside the C-Abstractor."""


def linear(d_in: int, d_out: int) -> int:
    return d_in * d_out + d_out


def block(channels: int) -> int:
    """A RegNet block: 1×1, depthwise 3×3 and 1×1 without biases, squeeze and excitation, norms."""
    squeezed = round(channels / 4)
    excitation = linear(W, squeezed) + linear(squeezed, W)
    shortcut = 0 if channels == W else channels * W + 2 * W
    return channels * W + 9 * W + W * W + excitation + 3 * 2 * W + shortcut


RESAMPLER_LAYER = H * 16 * 96 * 2 + H * 4 * 96 * 2 + 3 * H * 4 * H + 3 * H
PARAMETERS = {
    "linear": linear(V, H),
    "mlp2": linear(V, H) + linear(H, H),
    "mlp3": linear(V, 4 * V) + linear(4 * V, H) + linear(H, H),
    **{f"pool{k}": linear(V, H) + linear(H, H) for k in (2, 4)},
    **{f"pixel-shuffle{k}": 2 * k * k * V + linear(k * k * V, H) + linear(H, H) for k in (2, 4)},
    **{f"resampler-{n}": 2 * V * MLP + MLP * H + n * H + 3 * RESAMPLER_LAYER + H for n in (64, 144, 256)},
    "c-abstractor": block(V) + 5 * block(W) + linear(W, H) + linear(H, H),
    "ldpv2": linear(V, H) + linear(H, H) + 9 * H + H,
}
TOKENS = {
    **dict.fromkeys(("linear", "mlp2", "mlp3"), 96),
    **dict.fromkeys(("pool2", "pixel-shuffle2", "ldpv2"), 24),
    **dict.fromkeys(("pool4", "pixel-shuffle4"), 6),
    **{f"resampler-{n}": n for n in (64, 144, 256)},
    "c-abstractor": 144,
}
"""Visual tokens of a grid of 8 × 12."""


@pytest.mark.parametrize("name", names())
def test_connectors(name: str) -> None:
    connector = create_connector(name, V, H, grid=(8, 12), mlp_size=MLP, dtype=torch.bfloat16)
    assert sum(p.numel() for p in connector.parameters()) == PARAMETERS[name]
    visual = connector(torch.randn(2, 96, V).bfloat16())
    assert visual.shape == (2, TOKENS[name], H)
    assert visual.isfinite().all()
    assert facts(name).visual_tokens((8, 12)) == TOKENS[name]


def blocks_flops(channels: int, tokens: int) -> int:
    """FLOPs of a RegNet block's convolutions over `tokens` positions of one image."""
    squeezed = round(channels / 4)
    wide = channels * W + 9 * W + W * W + (0 if channels == W else channels * W)
    return 2 * (tokens * wide + 2 * W * squeezed)


def resampler_flops(n: int, tokens: int, d: int, h: int, mlp: int) -> int:
    """FLOPs of projections and attention of a resampler with `n` latents."""
    layer = n * (2 * h * 1536 + 3 * h * 4 * h) + (tokens + n) * 2 * h * 384 + n * (tokens + n) * 2 * 1536
    return 2 * (tokens * (2 * d * mlp + mlp * h) + 3 * layer)


def mlp2_flops(tokens: int, d_in: int, h: int) -> int:
    return 2 * tokens * (d_in * h + h * h)


MATRIX_FLOPS: Mapping[str, Callable[[int, int, int, int], int]] = {
    "linear": lambda n, d, h, mlp: 2 * n * d * h,
    "mlp2": lambda n, d, h, mlp: mlp2_flops(n, d, h),
    "mlp3": lambda n, d, h, mlp: 2 * n * (4 * d * d + 4 * d * h + h * h),
    "pool2": lambda n, d, h, mlp: mlp2_flops(n // 4, d, h),
    "pool4": lambda n, d, h, mlp: mlp2_flops(n // 16, d, h),
    "pixel-shuffle2": lambda n, d, h, mlp: mlp2_flops(n // 4, 4 * d, h),
    "pixel-shuffle4": lambda n, d, h, mlp: mlp2_flops(n // 16, 16 * d, h),
    "resampler-64": lambda *sizes: resampler_flops(64, *sizes),
    "resampler-144": lambda *sizes: resampler_flops(144, *sizes),
    "resampler-256": lambda *sizes: resampler_flops(256, *sizes),
    "c-abstractor": lambda n, d, h, mlp: (
        blocks_flops(d, n) + 2 * blocks_flops(W, n) + 3 * blocks_flops(W, 144) + mlp2_flops(144, W, h)
    ),
    "ldpv2": lambda n, d, h, mlp: mlp2_flops(n, d, h) + 2 * (n // 4) * 9 * h,
}
"""By hand, of one image with n encoder tokens of d channels, under an LLM of width h with an MLP of `mlp`."""


@pytest.mark.parametrize("name", names())
def test_flops_and_tokens_are_counted_exactly(name: str) -> None:
    """ViT-T (192 channels) at 256 × 384, 16 × 24 tokens, under llama-23m (384 channels, MLP of 1024)."""
    workload = Workload("vit-t", "llama-23m", 256, 384, connector=name, batch_size=2)
    cost = count(workload)
    assert cost == count(workload, in_full=True)
    assert cost.stages["connector"].matrix_flops == 2 * MATRIX_FLOPS[name](384, 192, 384, 1024)
    tokens = facts(name).visual_tokens((16, 24))
    assert cost.visual_tokens == tokens
    assert cost.stages["connector"].output_bytes == cost.stages["prefill"].input_bytes == 2 * tokens * 384 * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resampler-64", "c-abstractor", "pixel-shuffle2"])
def test_a_vlm_runs_with_a_connector_under_autocast(name: str) -> None:
    workload = Workload("vit-t", "llama-23m", 64, 96, connector=name, autocast=True)
    vlm = create_vlm(workload)
    embeddings = vlm.project(vlm.encode_image(torch.randn(1, 3, 64, 96)))
    tokens = facts(name).visual_tokens((4, 6))
    assert (embeddings.dtype, embeddings.shape) == (torch.bfloat16, (1, tokens, 384))
    assert vlm.prefill(embeddings).isfinite().all()


@pytest.mark.parametrize("name", [name for name in names() if facts(name).merged > 1])
@pytest.mark.parametrize("grid", [(7, 7), (8, 14 + 1), (13, 17)])
def test_a_grid_that_cannot_be_merged_is_refused(name: str, grid: Grid) -> None:
    with pytest.raises(UserError, match=rf"does not divide a grid of {grid[1]} x {grid[0]}"):
        create_connector(name, V, H, grid=grid)


def filled(module: nn.Module) -> nn.Module:
    """Random weights, norms and biases included."""
    for i, parameter in enumerate(module.parameters()):
        values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        parameter.data = values / parameter[0].numel() ** 0.5
    return module.eval()


def with_weights(name: str, grid: Grid, weights: Mapping[str, Tensor], d_in: int = V) -> nn.Module:
    connector = create_connector(name, d_in, H, grid=grid, mlp_size=MLP)
    connector.load_state_dict(weights)
    return connector


def tokens_of(grid: Grid, channels: int = V) -> Tensor:
    return torch.randn(2, grid[0] * grid[1], channels, generator=torch.Generator().manual_seed(7))


def same(answer: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        found[name] = tensor
    return found


VISION = {
    "hidden_size": V,
    "image_size": 64,
    "patch_size": 8,
    "intermediate_size": 64,
    "num_attention_heads": 4,
}
TEXT = {"hidden_size": H, "intermediate_size": MLP, "num_attention_heads": 4, "num_key_value_heads": 4}


@torch.inference_mode()
@pytest.mark.parametrize("latents", [64, 144])
@pytest.mark.parametrize("grid", [(5, 7), (8, 8)])
def test_the_resampler_is_idefics2s(latents: int, grid: Grid) -> None:
    config = Idefics2Config(
        vision_config=VISION,
        perceiver_config={"hidden_size": H, "resampler_n_latents": latents},
        text_config={**TEXT, "model_type": "mistral", "hidden_act": "silu"},
    )
    theirs = filled(Idefics2Connector(config))
    weights = renamed(theirs.state_dict(), {
        "perceiver_resampler.": "", "modality_projection": "projection", "gate_proj": "gate", "up_proj": "up",
        "down_proj": "down", "self_attn.q_proj": "queries", "self_attn.k_proj": "keys",
        "self_attn.v_proj": "values", "self_attn.o_proj": "output", "input_latents_norm": "latents_norm",
        "input_context_norm": "context_norm", "post_attention_layernorm": "mlp_norm",
    })  # fmt: skip
    tokens = tokens_of(grid)
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    same(with_weights(f"resampler-{latents}", grid, weights)(tokens), theirs(tokens, mask))


@torch.inference_mode()
@pytest.mark.parametrize("grid", [(8, 8), (6, 10)])
def test_the_pixel_shuffle_is_internvls(grid: Grid) -> None:
    config = InternVLConfig(vision_config=VISION, text_config={**TEXT, "model_type": "llama"})
    theirs = filled(InternVLMultiModalProjector(config))
    weights = renamed(theirs.state_dict(), {"layer_norm": "1", "linear_1": "2.0", "linear_2": "2.2"})
    tokens = tokens_of(grid)
    # a method that needs nothing of its model
    shuffle: Callable[..., Tensor] = InternVLModel.pixel_shuffle
    shuffled = shuffle(None, tokens.unflatten(1, grid), 0.5)
    expected = theirs(shuffled.flatten(1, 2))
    same(with_weights("pixel-shuffle2", grid, weights)(tokens), expected)


@torch.inference_mode()
@pytest.mark.parametrize("merged", [2, 4])
def test_the_pixel_shuffle_is_that_of_idefics3_and_smolvlm(merged: int) -> None:
    """Theirs, for square grids alone, is followed by a matrix without norm and bias."""
    config = Idefics3Config(vision_config=VISION, text_config=TEXT, scale_factor=merged)
    theirs = filled(Idefics3Connector(config))
    shuffle = create_connector(f"pixel-shuffle{merged}", V, H, grid=(8, 8)).get_submodule("0")
    tokens = tokens_of((8, 8))
    weight = theirs.state_dict()["modality_projection.proj.weight"]
    same(shuffle(tokens) @ weight.T, theirs(tokens))


@torch.inference_mode()
@pytest.mark.parametrize("merged", [2, 4])
def test_the_pool_is_that_of_llava_next_video(merged: int) -> None:
    config = LlavaNextVideoConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config={**TEXT, "model_type": "llama"},
        spatial_pool_stride=merged,
    )
    projector = filled(LlavaNextVideoMultiModalProjector(config))
    weights = renamed(projector.state_dict(), {"linear_1": "1.0", "linear_2": "1.2"})
    tokens = tokens_of((8, 8))
    expected = projector(LlavaNextVideoPooler(config)(tokens))
    same(with_weights(f"pool{merged}", (8, 8), weights)(tokens), expected)


@torch.inference_mode()
@pytest.mark.parametrize("grid", [(2, 2), (6, 10)])
def test_ldpv2_is_the_papers_formula(grid: Grid) -> None:
    """f = MLP(tokens); p = mean of 2 × 2; p + sum over 3 × 3 neighbours of weight · p + bias, in float64."""
    connector = filled(create_connector("ldpv2", V, H, grid=grid)).double()
    mlp = connector.get_submodule("0")
    weight, bias = (connector.get_parameter(f"2.depthwise.{name}") for name in ("weight", "bias"))
    tokens = tokens_of(grid).double()
    f = mlp(tokens).unflatten(1, grid)
    rows, columns = grid[0] // 2, grid[1] // 2
    p = torch.stack([
        f[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2)) for i in range(rows) for j in range(columns)
    ], 1)  # fmt: skip
    expected = p + bias
    for i in range(rows):
        for j in range(columns):
            for y in range(max(i - 1, 0), min(i + 2, rows)):
                for x in range(max(j - 1, 0), min(j + 2, columns)):
                    tap = weight[:, 0, y - i + 1, x - j + 1]
                    expected[:, i * columns + j] += tap * p[:, y * columns + x]
    same(connector(tokens), expected)


@torch.inference_mode()
@pytest.mark.parametrize("channels", [V, W])
def test_the_c_abstractor_has_blocks_of_regnet(channels: int) -> None:
    """timm's, with the options that the paper's own code gives them: layer norm, SiLU, depthwise."""
    timm = pytest.importorskip("timm", reason="the optional extra `timm` is not installed")
    from timm.models.regnet import Bottleneck

    theirs = filled(Bottleneck(channels, W, act_layer=nn.SiLU, norm_layer=timm.layers.LayerNorm2d))
    weights = renamed(theirs.state_dict(), {
        "conv1.conv": "widen", "conv1.bn": "widen_norm", "conv2.conv": "depthwise",
        "conv2.bn": "depthwise_norm", "conv3.conv": "project", "conv3.bn": "project_norm",
        "se.fc1": "squeeze", "se.fc2": "excite", "downsample.conv": "shortcut.0",
        "downsample.bn": "shortcut.1",
    })  # fmt: skip
    ours = Block(channels)
    ours.load_state_dict(weights)
    image = torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(1)).double()
    same(ours.double()(image), theirs.double()(image))


@torch.inference_mode()
@pytest.mark.parametrize("grid", [(24, 36), (13, 17)])
def test_the_c_abstractor_pools_any_grid_to_twelve_by_twelve(grid: Grid) -> None:
    """With blocks that do nothing, each visual token is the readout of the mean of its own window."""
    connector = create_connector("c-abstractor", W, H, grid=grid)
    for half in ("before", "after"):
        connector.set_submodule(half, nn.Identity())
    tokens = tokens_of(grid, W)
    image = tokens.unflatten(1, grid)
    windows = [[(i * n // 12, -(-(i + 1) * n // 12)) for i in range(12)] for n in grid]
    means = torch.stack([image[:, a:b, c:d].mean((1, 2)) for a, b in windows[0] for c, d in windows[1]], 1)
    same(connector(tokens), connector.get_submodule("readout")(means))
