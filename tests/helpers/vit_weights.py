"""Weights of our plain ViT for timm's and transformers'."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from transformers import ViTModel

from tests.helpers.checks import known
from vlmprof.backbones import create_backbone
from vlmprof.backbones.vit import ViT

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


def fresh(name: str, image_size: tuple[int, int] | None = None) -> ViT:
    """A ViT whose class token, positions and biases are not trivial either."""
    encoder = create_backbone(name, classifier=True, image_size=image_size)
    assert isinstance(encoder, ViT)
    generator = torch.Generator().manual_seed(5)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return encoder


def transformers_state(ours: ViT, theirs: ViTModel) -> dict[str, Tensor]:
    """Our parameters under the names of this version of transformers."""
    own = ours.state_dict()
    image_size = theirs.config.image_size
    assert isinstance(image_size, tuple)
    own["pos_embed"] = ours._position(*(side // 16 for side in image_size))
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
        _, index, part, leaf = known(re.fullmatch(r"(encoder\.)?layers?\.(\d+)\.(.*)\.(\w+)", name)).groups()
        if part in PARTS:
            state[name] = own[f"blocks.{index}.{PARTS[part]}.{leaf}"]
        else:
            third = THIRDS[part.rsplit(".", 1)[-1]]
            state[name] = own[f"blocks.{index}.attn.qkv.{leaf}"].chunk(3)[third]
    return state
