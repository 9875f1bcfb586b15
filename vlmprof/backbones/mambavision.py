"""MambaVision (Hatamizadeh & Kautz, arXiv 2407.08083): convolutions, then windowed scans and attention.

Parameter names are those of the authors' repository, NVlabs/MambaVision. The first two levels convolve;
in the last two, blocks work on windows of a fixed size: the first half scan, the second half attend.

A feature level here is a level's output before its down-sampling. The study's "stage 3" is what enters the
third level, with the same tokens and channels, one level cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmprof.backbones.checkpoints import strip_prefix
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import HierarchicalBackbone
from vlmprof.backbones.vit import Attention, Mlp
from vlmprof.kernels import Backend, resolve_backend, selective_scan

D_STATE = 8
D_CONV = 3


class MambaVision(HierarchicalBackbone):
    """Patch embedding, then feature levels of stride 4, 8, 16 and 32 with a down-sampling after each."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__(facts, options)
        config, dims, count = facts.config, facts.level_dims, self.level_count
        self.patch_embed = PatchEmbedding(config["stem_dim"], dims[0])
        self.levels = nn.ModuleList(
            Level(i, dims[i], config, options.kernels, downsamples=i + 1 < count) for i in range(count)
        )
        self.norm = nn.BatchNorm2d(dims[-1]) if options.classifier else None
        self.head = nn.Linear(dims[-1], 1000) if options.classifier else None
        self.optional = (r".*num_batches_tracked",)
        self.unused = (
            *self.levels_left_out("levels", of=len(dims)),
            *(() if options.classifier else (r"norm\.", r"head\.")),
        )
        device = next(self.parameters()).device
        self.backends = {"selective_scan": resolve_backend("selective_scan", device, options.kernels)}

    def tokens(self, level: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, rows·columns, channels)."""
        return level.flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every built level's output before its down-sampling, each
        (batch, channels, height, width)."""
        return list(self.run_levels(images))

    def logits(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, classes). Needs a model built with its classifier."""
        if self.norm is None or self.head is None:
            raise ValueError("this MambaVision was built without its classifier")
        *_, last = self.run_levels(images)
        logits: Tensor = self.head(self.norm(last).mean(dim=(2, 3)))
        return logits

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' files, which may hold the model as an encoder or as a data-parallel module."""
        return strip_prefix(state, ("module.", "encoder."))

    def run_levels(self, images: Tensor) -> Iterator[Tensor]:
        """(batch, 3, height, width) to each built level's (batch, channels, height, width)."""
        x = self.patch_embed(images)
        for level in self.levels:
            assert isinstance(level, Level)
            x = level(x)
            yield x
            if level.downsample is not None:
                x = level.downsample(x)


build = MambaVision


class PatchEmbedding(nn.Module):
    """Two 3×3 convolutions of stride 2."""

    def __init__(self, stem_dim: int, d_model: int) -> None:
        super().__init__()
        self.conv_down = nn.Sequential(
            nn.Conv2d(3, stem_dim, 3, 2, 1, bias=False),
            nn.BatchNorm2d(stem_dim, eps=1e-4),
            nn.ReLU(),
            nn.Conv2d(stem_dim, d_model, 3, 2, 1, bias=False),
            nn.BatchNorm2d(d_model, eps=1e-4),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, d_model, ⌈height/4⌉, ⌈width/4⌉)."""
        return self.conv_down(images)


class Downsample(nn.Module):
    """A 3×3 convolution of stride 2 that doubles the channels."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(d_model, 2 * d_model, 3, 2, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, d_model, height, width) to (batch, 2·d_model, ⌈height/2⌉, ⌈width/2⌉)."""
        return self.reduction(x)


class Level(nn.Module):
    """One feature level's blocks, and its down-sampling, which the caller applies."""

    def __init__(
        self, index: int, d_model: int, config: Mapping[str, Any], kernels: Backend, downsamples: bool
    ) -> None:
        super().__init__()
        depth = config["depths"][index]
        self.window = None if index < 2 else config["windows"][index]
        first_attention = (depth + 1) // 2
        self.blocks = nn.ModuleList(
            ConvolutionBlock(d_model)
            if self.window is None
            else TokenBlock(
                d_model,
                config["heads"][index] if i >= first_attention else 0,
                config["layer_scale"],
                kernels,
            )
            for i in range(depth)
        )
        self.downsample = Downsample(d_model) if downsamples else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, d_model, height, width) to the same; windows are padded with zeros at the far edges."""
        if self.window is None:
            for block in self.blocks:
                x = block(x)
            return x
        side = self.window
        batch, _, height, width = x.shape
        x = F.pad(x, (0, -width % side, 0, -height % side))
        rows, columns = x.shape[2] // side, x.shape[3] // side
        tokens = x.unflatten(2, (rows, side)).unflatten(4, (columns, side)).permute(0, 2, 4, 3, 5, 1)
        tokens = tokens.reshape(batch * rows * columns, side * side, -1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = tokens.view(batch, rows, columns, side, side, -1).permute(0, 5, 1, 3, 2, 4)
        return tokens.reshape(batch, -1, rows * side, columns * side)[:, :, :height, :width].contiguous()


class ConvolutionBlock(nn.Module):
    """Two 3×3 convolutions around a residual."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(d_model, d_model, 3, 1, 1)
        self.norm1 = nn.BatchNorm2d(d_model)
        self.conv2 = nn.Conv2d(d_model, d_model, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, d_model, height, width) to the same."""
        y = F.gelu(self.norm1(self.conv1(x)), approximate="tanh")
        return x + self.norm2(self.conv2(y))


class TokenBlock(nn.Module):
    """Pre-norm mixer and MLP over the tokens of a window; the mixer scans, or attends when it has heads."""

    def __init__(self, d_model: int, heads: int, layer_scale: bool, kernels: Backend) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.mixer = Attention(d_model, heads) if heads else StateSpaceMixer(d_model, kernels)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = Mlp(d_model, 4 * d_model)
        self.gamma_1 = nn.Parameter(torch.empty(d_model)) if layer_scale else None
        self.gamma_2 = nn.Parameter(torch.empty(d_model)) if layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, d_model) to the same."""
        mixed = self.mixer(self.norm1(x))
        x = x + (mixed if self.gamma_1 is None else self.gamma_1 * mixed)
        widened = self.mlp(self.norm2(x))
        return x + (widened if self.gamma_2 is None else self.gamma_2 * widened)


class StateSpaceMixer(nn.Module):
    """Half of the channels pass a selective scan, the other half a convolution; both meet in `out_proj`."""

    def __init__(self, d_model: int, kernels: Backend) -> None:
        super().__init__()
        d_inner, dt_rank = d_model // 2, math.ceil(d_model / 16)
        self.kernels = kernels
        self.sizes = [dt_rank, D_STATE, D_STATE]
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d_x = nn.Conv1d(d_inner, d_inner, D_CONV, padding="same", groups=d_inner, bias=False)
        self.conv1d_z = nn.Conv1d(d_inner, d_inner, D_CONV, padding="same", groups=d_inner, bias=False)
        self.x_proj = nn.Linear(d_inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.empty(d_inner, D_STATE, dtype=torch.float32))
        self.D = nn.Parameter(torch.empty(d_inner, dtype=torch.float32))
        self.out_proj = nn.Linear(2 * d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, d_model) to the same."""
        scanned, convolved = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        scanned = F.silu(self.conv1d_x(scanned))
        convolved = F.silu(self.conv1d_z(convolved))
        dt, B, C = self.x_proj(scanned.transpose(1, 2)).split(self.sizes, dim=-1)
        # the published model adds dt_proj's bias here and once more inside the scan
        y = selective_scan(
            scanned,
            self.dt_proj(dt).transpose(1, 2),
            -torch.exp(self.A_log.float()),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            self.dt_proj.bias.float(),
            delta_softplus=True,
            backend=self.kernels,
        )
        return self.out_proj(torch.cat((y, convolved), dim=1).transpose(1, 2))
