"""The C-Abstractor of Honeybee (arXiv 2312.06742): convolutions around an adaptive average pool.

3 blocks of RegNet, the pool to a square of visual tokens, 3 more blocks, and an MLP. The paper's learned
position embeddings and its token at the end of an image are left out: they belong to one training resolution.
"""

from __future__ import annotations

from math import isqrt

from torch import Tensor, nn
from torch.nn import functional

from vlmprof.vlm.connector_catalog import Grid

WIDTH = 1024
BLOCKS = 3
"""Before the pool, and as many after it."""
SQUEEZE = 0.25
"""Channels of the squeezed signal, as a share of the block's input."""


class CAbstractor(nn.Module):
    """`tokens` visual tokens, a square number, for a grid of any size."""

    def __init__(self, vision_dim: int, hidden_size: int, grid: Grid, tokens: int) -> None:
        super().__init__()
        self.grid = grid
        side = isqrt(tokens)
        self.before = nn.Sequential(*(Block(WIDTH if i else vision_dim) for i in range(BLOCKS)))
        self.pool = nn.AdaptiveAvgPool2d((side, side))
        self.after = nn.Sequential(*(Block(WIDTH) for _ in range(BLOCKS)))
        self.readout = nn.Sequential(
            nn.Linear(WIDTH, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, rows · columns, vision_dim) to (batch, visual tokens, hidden_size)."""
        image = tokens.transpose(1, 2).unflatten(2, self.grid)
        merged = self.after(self.pool(self.before(image)))
        out: Tensor = self.readout(merged.flatten(2).transpose(1, 2))
        return out


class Block(nn.Module):
    """RegNet's bottleneck block (arXiv 2003.13678) with squeeze and excitation, depthwise and WIDTH wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round(channels * SQUEEZE)
        self.widen = nn.Conv2d(channels, WIDTH, 1, bias=False)
        self.widen_norm = ChannelNorm(WIDTH)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)
        self.depthwise_norm = ChannelNorm(WIDTH)
        self.squeeze = nn.Conv2d(WIDTH, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, WIDTH, 1)
        self.project = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.project_norm = ChannelNorm(WIDTH)
        self.shortcut = (
            nn.Identity()
            if channels == WIDTH
            else nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), ChannelNorm(WIDTH))
        )

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, WIDTH, rows, columns)."""
        x = functional.silu(self.widen_norm(self.widen(image)))
        x = functional.silu(self.depthwise_norm(self.depthwise(x)))
        share = self.excite(functional.silu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return functional.silu(self.project_norm(self.project(x * share)) + self.shortcut(image))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of an image."""

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to the same shape."""
        return super().forward(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
