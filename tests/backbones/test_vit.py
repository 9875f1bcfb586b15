"""The plain ViT against timm's and transformers'."""

import re

import pytest
import torch
from golden import golden_image
from transformers import ViTConfig, ViTModel

from vlmprof.backbones import create_backbone

# our name of each part of a block, under the names that transformers 5 has used for it
PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2, "query": 0, "key": 1, "value": 2}


def close(ours, theirs):
    error = (ours - theirs).abs().max() / theirs.std()
    assert error < 1e-4, f"relative error {error:.1e}"


def fresh(name, **options):
    """A ViT whose class token, positions and biases are not trivial either."""
    encoder = create_backbone(name, classifier=True, **options)
    generator = torch.Generator().manual_seed(5)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return encoder


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (272, 256)])
def test_agrees_with_timm(size):
    timm = pytest.importorskip("timm", reason="the optional extra `timm` is not installed")
    ours = fresh("vit-t")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=1000, dynamic_img_size=True).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = golden_image(*size)
    with torch.inference_mode():
        close(ours(images), theirs.forward_features(images)[:, 1:])
        close(ours.logits(images), theirs(images))


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_agrees_with_transformers(size):
    """At another resolution transformers is given our positions: it interpolates in its own way."""
    ours = fresh("vit-s", image_size=size)
    config = ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        image_size=size,
        layer_norm_eps=1e-6,
    )
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(transformers_state(ours, theirs), strict=True)
    images = golden_image(*size)
    with torch.inference_mode():
        close(ours(images), theirs(images).last_hidden_state[:, 1:])


def transformers_state(ours, theirs):
    """Our parameters under the names of this version of transformers."""
    own = ours.state_dict()
    own["pos_embed"] = ours._position(*(side // 16 for side in theirs.config.image_size))
    stem = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    state = {}
    for name in theirs.state_dict():
        if name in stem:
            state[name] = own[stem[name]]
            continue
        _, index, part, leaf = re.fullmatch(r"(encoder\.)?layers?\.(\d+)\.(.*)\.(\w+)", name).groups()
        if part in PARTS:
            state[name] = own[f"blocks.{index}.{PARTS[part]}.{leaf}"]
        else:
            third = THIRDS[part.rsplit(".", 1)[-1]]
            state[name] = own[f"blocks.{index}.attn.qkv.{leaf}"].chunk(3)[third]
    return state


def test_positions_are_interpolated_once_per_resolution(monkeypatch):
    encoder = create_backbone("vit-t", image_size=(96, 160))

    def fail(*args, **kwargs):
        raise AssertionError("interpolated in the timed call")

    monkeypatch.setattr(torch.nn.functional, "interpolate", fail)
    assert encoder(golden_image(96, 160)).shape == (1, 60, 192)
