"""The connector: visual tokens to the language model's embeddings."""

from __future__ import annotations

from itertools import pairwise

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
        for d_in, d_out in pairwise(facts(name).widths(vision_dim, hidden_size)):
            layers += [nn.GELU(), nn.Linear(d_in, d_out)] if layers else [nn.Linear(d_in, d_out)]
        connector = nn.Sequential(*layers)
    fill(connector, seed)
    return connector
