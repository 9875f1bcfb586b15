"""ViT-Adapter (Chen et al., arXiv 2205.08534): a plain ViT beside a small convolutional pyramid.

Four times, the pyramid is injected into the ViT's tokens and extracts from them again, both by deformable
attention over the grids of stride 8, 16 and 32. Parameter names are those of the authors' repository,
czczup/ViT-Adapter; the deformable attention itself is transformers'.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from vlmprof.backbones.checkpoints import strip_prefix
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.vit import Attention, Mlp

Grid = tuple[int, int]
POINTS = 4
"""Sampling points of each head in each grid."""


class ViTAdapter(Backbone):
    """Feature levels of stride 4 to 32, all of the ViT's width; every level needs the whole depth."""

    optional = (r"blocks\.\d+\.gamma[12]", r".*num_batches_tracked")

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        config, d_model = facts.config, facts.embed_dim
        assert facts.level is not None
        self.tap = facts.level - 1
        self.all_levels = options.levels == "all"
        self.side = config["pretrained_size"] // config["patch"]
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.side**2, d_model))
        self.level_embed = nn.Parameter(torch.empty(3, d_model))
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, d_model, config["patch"], stride=config["patch"])}
        )
        self.blocks = nn.ModuleList(Block(d_model, config["heads"]) for _ in range(config["depth"]))
        self.spm = SpatialPrior(config["stem_dim"], d_model)
        self.interactions = nn.ModuleList(
            Interaction(d_model, config["deform_heads"], config["deform_ratio"], last=i == 3)
            for i in range(4)
        )
        self.up = nn.ConvTranspose2d(d_model, d_model, 2, 2)
        for i in range(1, 5):
            self.add_module(f"norm{i}", nn.BatchNorm2d(d_model))
        self._prepared: dict[Grid, tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width), sides multiples of 32, to the tapped level's tokens
        (batch, rows·columns, d_model)."""
        wanted = range(4) if self.all_levels else (self.tap,)
        return self._levels(images, wanted)[self.tap].flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to all four levels, each (batch, d_model, height, width)."""
        return list(self._levels(images, range(4)).values())

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The backbone in the authors' segmentation and detection files."""
        return strip_prefix(state, ("module.", "backbone."))

    def _levels(self, images: Tensor, wanted: range | tuple[int, ...]) -> dict[int, Tensor]:
        rows, columns = images.shape[2] // 16, images.shape[3] // 16
        grids = _pyramid(rows, columns)
        position, middle, pyramid = self._prepare(rows, columns)

        finest, *coarser = self.spm(images)
        embedded = [level.flatten(2).transpose(1, 2) + self.level_embed[i] for i, level in enumerate(coarser)]
        prior = torch.cat(embedded, dim=1)
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + position
        depth = len(self.blocks) // 4
        encoded = []
        for i, interaction in enumerate(self.interactions):
            assert isinstance(interaction, Interaction)
            x = interaction.injector(x, middle, prior, grids)
            for block in self.blocks[i * depth : (i + 1) * depth]:
                x = block(x)
            prior = interaction.extract(prior, pyramid, x, grids)
            encoded.append(x)

        parts = prior.split([height * width for height, width in grids], dim=1)
        maps = [_as_map(part, grid) for part, grid in zip(parts, grids, strict=True)]
        levels = {}
        for i in wanted:
            level = self.up(maps[0]) + finest if i == 0 else maps[i - 1]
            scale = 2.0 ** (2 - i)
            tokens = _as_map(encoded[i], (rows, columns))
            if scale != 1:
                tokens = F.interpolate(tokens, scale_factor=scale, mode="bilinear", align_corners=False)
            levels[i] = self.get_submodule(f"norm{i + 1}")(level + tokens)
        return levels

    def _prepare(self, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, and the reference points of the ViT's grid and of the pyramid, once per resolution."""
        if (rows, columns) not in self._prepared:
            grid = self.pos_embed[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
            position = F.interpolate(grid.float(), size=(rows, columns), mode="bicubic", align_corners=False)
            position = position.to(grid.dtype).flatten(2).transpose(1, 2)
            middle = _reference_points([(rows, columns)], position)
            pyramid = _reference_points(_pyramid(rows, columns), position)
            self._prepared = {(rows, columns): (position, middle, pyramid)}
        return self._prepared[rows, columns]


build = ViTAdapter


class Block(nn.Module):
    """The ViT's block with a learned scale on each branch."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, eps=1e-6)
        self.attn = Attention(d_model, heads)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-6)
        self.mlp = Mlp(d_model, 4 * d_model)
        self.gamma1 = nn.Parameter(torch.empty(d_model))
        self.gamma2 = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, d_model) to the same."""
        x = x + self.gamma1 * self.attn(self.norm1(x))
        return x + self.gamma2 * self.mlp(self.norm2(x))


class SpatialPrior(nn.Module):
    """A convolutional stem and three down-samplings, each brought to the ViT's width."""

    def __init__(self, width: int, d_model: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, width, stride=2),
            *_convolution(width, width, stride=1),
            *_convolution(width, width, stride=1),
            nn.MaxPool2d(3, 2, 1),
        )
        self.conv2 = nn.Sequential(*_convolution(width, 2 * width, stride=2))
        self.conv3 = nn.Sequential(*_convolution(2 * width, 4 * width, stride=2))
        self.conv4 = nn.Sequential(*_convolution(4 * width, 4 * width, stride=2))
        self.fc1 = nn.Conv2d(width, d_model, 1)
        self.fc2 = nn.Conv2d(2 * width, d_model, 1)
        self.fc3 = nn.Conv2d(4 * width, d_model, 1)
        self.fc4 = nn.Conv2d(4 * width, d_model, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(batch, 3, height, width) to (batch, d_model, height/s, width/s) for s = 4, 8, 16, 32."""
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


class Interaction(nn.Module):
    """Into the ViT's tokens before a quarter of its blocks, out of them after; the last extracts thrice."""

    def __init__(self, d_model: int, heads: int, ratio: float, last: bool) -> None:
        super().__init__()
        self.injector = Injector(d_model, heads, ratio)
        self.extractor = Extractor(d_model, heads, ratio)
        self.extra_extractors = (
            nn.ModuleList(Extractor(d_model, heads, ratio) for _ in range(2)) if last else None
        )

    def extract(self, prior: Tensor, points: Tensor, x: Tensor, grids: list[Grid]) -> Tensor:
        """(batch, pyramid tokens, d_model) and the ViT's (batch, tokens, d_model) to the former's shape."""
        for extractor in (self.extractor, *(self.extra_extractors or ())):
            prior = extractor(prior, points, x, grids)
        return prior


class Injector(nn.Module):
    """x += gamma · attention(from x, to the pyramid)."""

    def __init__(self, d_model: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.feat_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.attn = DeformableAttention(d_model, heads, levels=3, ratio=ratio)
        self.gamma = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor, points: Tensor, prior: Tensor, grids: list[Grid]) -> Tensor:
        """(batch, tokens, d_model) to the same."""
        return x + self.gamma * self.attn(self.query_norm(x), points, self.feat_norm(prior), grids)


class Extractor(nn.Module):
    """prior += attention(from the pyramid, to x); prior += convolutional MLP(prior)."""

    def __init__(self, d_model: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.feat_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.attn = DeformableAttention(d_model, heads, levels=1, ratio=ratio)
        self.ffn = ConvolutionalMlp(d_model, d_model // 4)
        self.ffn_norm = nn.LayerNorm(d_model, eps=1e-6)

    def forward(self, prior: Tensor, points: Tensor, x: Tensor, grids: list[Grid]) -> Tensor:
        """(batch, pyramid tokens, d_model) to the same."""
        prior = prior + self.attn(self.query_norm(prior), points, self.feat_norm(x), grids[1:2])
        return prior + self.ffn(self.ffn_norm(prior), grids)


class ConvolutionalMlp(nn.Module):
    """Linear, depthwise 3×3 convolution within each grid, GELU, linear."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, hidden)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)})
        self.fc2 = nn.Linear(hidden, d_model)

    def forward(self, x: Tensor, grids: list[Grid]) -> Tensor:
        """(batch, pyramid tokens, d_model) to the same."""
        parts = self.fc1(x).split([height * width for height, width in grids], dim=1)
        convolved = [
            self.dwconv["dwconv"](_as_map(part, grid)).flatten(2).transpose(1, 2)
            for part, grid in zip(parts, grids, strict=True)
        ]
        return self.fc2(F.gelu(torch.cat(convolved, dim=1)))


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each grid, at offsets from its own place (arXiv 2010.04159)."""

    def __init__(self, d_model: int, heads: int, levels: int, ratio: float) -> None:
        super().__init__()
        self.shape = heads, levels, POINTS
        samples, d_value = heads * levels * POINTS, int(ratio * d_model)
        self.sampling_offsets = nn.Linear(d_model, 2 * samples)
        self.attention_weights = nn.Linear(d_model, samples)
        self.value_proj = nn.Linear(d_model, d_value)
        self.output_proj = nn.Linear(d_value, d_model)
        self.sample = MultiScaleDeformableAttention()

    def forward(self, query: Tensor, points: Tensor, features: Tensor, grids: list[Grid]) -> Tensor:
        """Queries (batch, queries, d_model) at points (1, queries, 1, 2), x before y from 0 to 1, over
        features (batch, all grids' tokens, d_model) to the queries' shape."""
        heads, levels, count = self.shape
        value = self.value_proj(features).unflatten(-1, (heads, -1))
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, levels, count, 2))
        sizes = query.new_tensor([[width, height] for height, width in grids])
        places = points[:, :, None, :, None, :] + offsets / sizes[None, None, None, :, None, :]
        weights = self.attention_weights(query).unflatten(-1, (heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (levels, count))
        return self.output_proj(self.sample(value, None, grids, None, places, weights, 64))


def _convolution(d_in: int, d_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU()]


def _pyramid(rows: int, columns: int) -> list[Grid]:
    """The grids of stride 8, 16 and 32, for one of stride 16."""
    return [(2 * rows, 2 * columns), (rows, columns), (rows // 2, columns // 2)]


def _as_map(tokens: Tensor, grid: Grid) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, grid)


def _reference_points(grids: list[Grid], like: Tensor) -> Tensor:
    """The centre of every cell of every grid, x before y, as shares of the image: (1, cells, 1, 2)."""
    centres = []
    for height, width in grids:
        y = (torch.arange(height, device=like.device) + 0.5) / height
        x = (torch.arange(width, device=like.device) + 0.5) / width
        centres.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1))
    return torch.cat(centres)[None, :, None].to(like.dtype)
