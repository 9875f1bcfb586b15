"""The perceiver resampler of Idefics 2 (arXiv 2405.02246): learned queries that attend to an image's tokens.

encoder tokens ──gated MLP──▶ context ─┐
learned latents ─────────────▶ 3 × (attend to context and latents, gated MLP) ──norm──▶ visual tokens
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS = 3
HEADS, KEY_HEADS, HEAD_DIM = 16, 4, 96
"""Of queries; of keys and values; channels of each. They do not depend on the LLM's width."""
EPS = 1e-6


class Resampler(nn.Module):
    """`latents` visual tokens for an image of any number of tokens, whose order does not matter."""

    def __init__(self, vision_dim: int, hidden_size: int, mlp_size: int, latents: int) -> None:
        super().__init__()
        self.projection = GatedMLP(vision_dim, mlp_size, hidden_size)
        self.latents = nn.Parameter(torch.empty(latents, hidden_size))
        self.layers = nn.ModuleList(ResamplerLayer(hidden_size) for _ in range(LAYERS))
        self.norm = Norm(hidden_size, EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, vision_dim) to (batch, latents, hidden_size)."""
        context = self.projection(tokens)
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, context)
        normed: Tensor = self.norm(latents)
        return normed


class ResamplerLayer(nn.Module):
    """Cross-attention from the latents to context and latents, then a gated MLP, both residual."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.latents_norm = Norm(hidden_size, EPS)
        self.context_norm = Norm(hidden_size, EPS)
        self.queries = nn.Linear(hidden_size, HEADS * HEAD_DIM, bias=False)
        self.keys = nn.Linear(hidden_size, KEY_HEADS * HEAD_DIM, bias=False)
        self.values = nn.Linear(hidden_size, KEY_HEADS * HEAD_DIM, bias=False)
        self.output = nn.Linear(HEADS * HEAD_DIM, hidden_size, bias=False)
        self.mlp_norm = Norm(hidden_size, EPS)
        self.mlp = GatedMLP(hidden_size, 4 * hidden_size, hidden_size)

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """(batch, latents, hidden_size) and (batch, tokens, hidden_size) to the shape of the latents."""
        own = self.latents_norm(latents)
        seen = torch.cat((self.context_norm(context), own), dim=1)
        queries, keys, values = (
            projection(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)  # (batch, heads, tokens, HEAD_DIM)
            for projection, x in ((self.queries, own), (self.keys, seen), (self.values, seen))
        )
        # not every attention backend takes fewer heads of keys than of queries
        keys, values = (x.repeat_interleave(HEADS // KEY_HEADS, dim=1) for x in (keys, values))
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        latents = latents + self.output(attended.transpose(1, 2).flatten(2))
        out: Tensor = latents + self.mlp(self.mlp_norm(latents))
        return out


class Norm(nn.RMSNorm):
    """An RMS norm whose result is rounded before it is scaled, which autocast needs too."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, hidden_size) to the same shape."""
        return self.weight * functional.rms_norm(x, self.normalized_shape, eps=self.eps)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_in, d_hidden, bias=False)
        self.up = nn.Linear(d_in, d_hidden, bias=False)
        self.down = nn.Linear(d_hidden, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_in) to (…, d_out)."""
        out: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return out
