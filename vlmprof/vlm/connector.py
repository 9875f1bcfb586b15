"""The connector: visual tokens to the language model's embeddings."""

from __future__ import annotations

import torch
from torch import nn

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.vlm.connector_catalog import facts


def create_connector(
    name: str,
    vision_dim: int,
    hidden_size: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> nn.Sequential:
    """(batch, tokens, vision_dim) to (batch, tokens, hidden_size), with random weights made in place.

    The keys are LLaVA's (`0.weight`, `2.weight`, …). Raises `UserError` for an unknown name.
    """
    layers: list[nn.Module] = []
    with uninitialised(device, dtype):
        for i in range(facts(name).layers):
            if i:
                layers.append(nn.GELU())
            layers.append(nn.Linear(hidden_size if i else vision_dim, hidden_size))
        connector = nn.Sequential(*layers)
    fill(connector, seed)
    return connector
