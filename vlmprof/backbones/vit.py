"""The plain vision transformer (Dosovitskiy et al., arXiv 2010.11929), with timm's parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmprof.backbones.checkpoints import strip_prefix
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone


class ViT(Backbone):
    """Pre-norm encoder with a class token and learned positions, at any resolution the patch divides."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        config, d_model, patch = facts.config, facts.embed_dim, facts.stride
        side = config["pretrained_size"] // patch
        self.patch = patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, d_model, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, d_model))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, d_model))
        self.blocks = nn.ModuleList(
            Block(d_model, config["heads"], config["mlp_ratio"]) for _ in range(config["depth"])
        )
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, 1000) if options.classifier else None
        self.unused = () if options.classifier else (r"head\.",)
        self._positions: dict[tuple[int, int], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to patch tokens (batch, rows·columns, d_model), class token dropped."""
        return self._encode(images)[:, 1:]

    def logits(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, classes). Needs a model built with its classifier."""
        if self.head is None:
            raise ValueError("this ViT was built without its classifier")
        logits: Tensor = self.head(self._encode(images)[:, 0])
        return logits

    def prepare(self, height: int, width: int) -> None:
        """Interpolate the positions for a resolution in pixels now, instead of in the first call."""
        self._position(height // self.patch, width // self.patch)

    def _encode(self, images: Tensor) -> Tensor:
        """All tokens after the final norm, class token first: (batch, 1 + rows·columns, d_model)."""
        patches = self.patch_embed["proj"](images)
        position = self._position(patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1) + position
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.norm(x)
        return encoded

    def _position(self, rows: int, columns: int) -> Tensor:
        """Position embedding (1, 1 + rows·columns, d_model), interpolated once per resolution.

        Antialiased bicubic in float32, as timm's `resample_abs_pos_embed`; the class token keeps its own.
        """
        if (rows, columns) not in self._positions:
            side = int((self.pos_embed.shape[1] - 1) ** 0.5)
            position: Tensor = self.pos_embed
            if (rows, columns) != (side, side):
                grid = position[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
                grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
                grid = grid.flatten(2).transpose(1, 2).to(position.dtype)
                position = torch.cat((position[:, :1], grid), dim=1)
            self._positions = {(rows, columns): position}
        return self._positions[rows, columns]

    def _apply(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._positions = {}
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._positions = {}
        return super()._load_from_state_dict(*args, **kwargs)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's files need nothing but dropping a data-parallel prefix."""
        return strip_prefix(state, ("module.",))


build = ViT


class Block(nn.Module):
    """x += attention(norm1(x)); x += mlp(norm2(x))."""

    def __init__(self, d_model: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, eps=1e-6)
        self.attn = Attention(d_model, heads)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-6)
        self.mlp = Mlp(d_model, mlp_ratio * d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, d_model) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Multi-head self-attention through torch's scaled-dot-product attention."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch or windows, tokens, d_model) to the same."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, hidden)
        self.fc2 = nn.Linear(hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) to the same."""
        return self.fc2(F.gelu(self.fc1(x)))
