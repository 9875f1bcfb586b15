"""The connector: an image's encoder tokens to visual tokens, which are embeddings of the language model.

Connectors that merge tokens are given the grid of encoder tokens, row by row, when they are built.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.vlm.c_abstractor import CAbstractor
from vlmprof.vlm.connector_catalog import ConnectorFacts, Grid, facts
from vlmprof.vlm.resampler import Resampler


def create_connector(
    name: str,
    vision_dim: int,
    hidden_size: int,
    *,
    grid: Grid = (1, 1),
    mlp_size: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> nn.Module:
    """(batch, encoder tokens, vision_dim) to (batch, visual tokens, hidden_size), with random weights.

    `grid` has the rows and columns of encoder tokens; connectors that treat every token alike ignore it. A
    resampler's projection is `mlp_size` wide, as the LLM's own MLP, by default 4 · hidden_size. The keys of
    `linear`, `mlp2` and `mlp3` are LLaVA's (`0.weight`, `2.weight`, …). Raises `UserError` for an unknown
    name and for a grid that cannot be merged.
    """
    known = facts(name)
    known.visual_tokens(grid)
    with uninitialised(device, dtype):
        connector = _built(known, vision_dim, hidden_size, grid, mlp_size or 4 * hidden_size)
    fill(connector, seed)
    return connector


def _built(known: ConnectorFacts, vision_dim: int, hidden_size: int, grid: Grid, mlp_size: int) -> nn.Module:
    match known.kind:
        case "mlp":
            return _mlp(known, vision_dim, hidden_size)
        case "pool":
            return nn.Sequential(AveragePool(grid, known.merged), _mlp(known, vision_dim, hidden_size))
        case "pixel-shuffle":
            channels = vision_dim * known.merged**2
            mlp = _mlp(known, channels, hidden_size)
            return nn.Sequential(PixelShuffle(grid, known.merged), nn.LayerNorm(channels), mlp)
        case "ldpv2":
            projection = _mlp(known, vision_dim, hidden_size)
            merged = grid[0] // known.merged, grid[1] // known.merged
            return nn.Sequential(
                projection, AveragePool(grid, known.merged), PositionConvolution(hidden_size, merged)
            )
        case "c-abstractor":
            return CAbstractor(vision_dim, hidden_size, grid, known.visual_tokens(grid))
        case "resampler":
            return Resampler(vision_dim, hidden_size, mlp_size, known.visual_tokens(grid))


def _mlp(known: ConnectorFacts, vision_dim: int, hidden_size: int) -> nn.Sequential:
    """A multi-layer perceptron with GELU between its layers; the study's third layer has a wider first."""
    widths = (vision_dim, *(hidden_size for _ in range(known.layers)))
    if known.layers == 3:
        widths = vision_dim, 4 * vision_dim, hidden_size, hidden_size
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        layers += [nn.GELU(), nn.Linear(d_in, d_out)] if layers else [nn.Linear(d_in, d_out)]
    return nn.Sequential(*layers)


class AveragePool(nn.Module):
    """The mean of each `merged` × `merged` tokens of a grid."""

    def __init__(self, grid: Grid, merged: int) -> None:
        super().__init__()
        rows, columns = grid
        self.blocks = rows // merged, merged, columns // merged, merged

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, channels) to (batch, tokens / merged², channels)."""
        return tokens.unflatten(1, self.blocks).mean((2, 4)).flatten(1, 2)


class PixelShuffle(AveragePool):
    """The channels of each `merged` × `merged` tokens of a grid side by side, row by row."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, channels) to (batch, tokens / merged², channels · merged²)."""
        blocks = tokens.unflatten(1, self.blocks).transpose(2, 3)
        return blocks.flatten(3).flatten(1, 2)


class PositionConvolution(nn.Module):
    """A depthwise 3 × 3 convolution added to its input, as in conditional positional encoding."""

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, channels) to the same shape."""
        image = tokens.transpose(1, 2).unflatten(2, self.grid)
        return tokens + self.depthwise(image).flatten(2).transpose(1, 2)
