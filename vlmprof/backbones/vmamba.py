"""VMamba (Liu et al., arXiv 2401.10166): a hierarchical backbone whose mixer is SS2D.

Parameter names are those of the authors' repository, MzeroMiko/VMamba. Activations are channels last,
(batch, height, width, channels), from the first convolution to the tokens, so that nothing is transposed.

Dtypes: matrices, filters and norms are in the model's dtype; `A_logs`, `Ds` and `dt_projs_bias` stay in
float32, as the scan reads them there. The scan merges its four directions in float32 and rounds once;
layer norm takes that rounded value and computes its own statistics in float32.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmprof.backbones.checkpoints import strip_prefix
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import HierarchicalBackbone
from vlmprof.kernels import (
    Backend,
    convolution_norm,
    depthwise_conv_silu,
    layer_norm,
    linear,
    norm_linear,
    norm_mlp,
    resolve_backend,
    ss2d,
)

DIRECTIONS = 4

PIECES = (
    "ss2d", "norm_linear", "linear", "norm_mlp", "layer_norm", "convolution_norm", "depthwise_conv_silu",
)  # fmt: skip
"""Operations with a choice of backends."""


class VMamba(HierarchicalBackbone):
    """Patch embedding, then feature levels of stride 4, 8, 16 and 32 with a down-sampling after each.

    As in the authors' own backbone for dense tasks, and so in the study's, the tapped level passes a layer
    norm (`outnorm2` for the third). Classification checkpoints have none: there it starts as the identity.
    The classifier has none either.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__(facts, options)
        config, dims, kernels = facts.config, facts.level_dims, options.kernels
        self.kernels = kernels
        embedding = _overlapping_embedding if config["overlap"] else _patches
        self.patch_embed = ConvolutionNorms(embedding(dims[0]), kernels)
        self.layers = nn.ModuleList(
            Level(
                (Block(dims[i], config, kernels) for _ in range(config["depths"][i])),
                _downsample(dims[i], dims[i + 1], config["overlap"], kernels)
                if i + 1 < self.level_count
                else None,
            )
            for i in range(self.level_count)
        )
        self.classifier = Classifier(dims[-1], 1000) if options.classifier else None
        self.outnorm = None if options.classifier else f"outnorm{self.tap}"
        if self.outnorm:
            self.add_module(self.outnorm, nn.LayerNorm(dims[self.tap]))
        self.overlap = config["overlap"]
        self.optional = (r"outnorm",)
        self.unused = (
            r"outnorm",
            *self.levels_left_out("layers", of=len(dims)),
            *(() if options.classifier else (r"classifier\.",)),
        )
        device = next(self.parameters()).device
        self.backends = {piece: resolve_backend(piece, device, kernels) for piece in PIECES}

    def tokens(self, level: Tensor) -> Tensor:
        """(batch, height, width, channels) to (batch, rows·columns, channels)."""
        if self.outnorm:
            level = _layer_norm(level, getattr(self, self.outnorm), self.kernels)
        return level.flatten(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every built level's output before its down-sampling, each
        (batch, channels, height, width)."""
        return [level.permute(0, 3, 1, 2) for level in self.run_levels(images)]

    def logits(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, classes). Needs a model built with its classifier."""
        if self.classifier is None:
            raise ValueError("this VMamba was built without its classifier")
        *_, last = self.run_levels(images)
        logits: Tensor = self.classifier(last)
        return logits

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' classification, detection and segmentation files, old names included."""
        return {
            _current_name(name, self.overlap): _three_dimensional(name, tensor)
            for name, tensor in strip_prefix(state, ("module.", "backbone.")).items()
        }

    def run_levels(self, images: Tensor) -> Iterator[Tensor]:
        """(batch, 3, height, width) to each built level's (batch, height, width, channels)."""
        x = images.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        x = self.patch_embed(x)
        for level in self.layers:
            assert isinstance(level, Level)
            x = level.blocks(x)
            yield x
            if level.downsample is not None:
                x = level.downsample(x)


build = VMamba


class Level(nn.Module):
    """The blocks of one resolution, and the way to the next one."""

    def __init__(self, blocks: Iterator[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample


class Block(nn.Module):
    """x += SS2D(norm(x)); x += MLP(norm2(x)), the latter only where the variant has an MLP."""

    def __init__(self, d_model: int, config: Mapping[str, Any], kernels: Backend) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.op = SS2D(d_model, config["d_state"], config["ssm_ratio"], config["gate"], kernels)
        hidden = config["mlp_ratio"] * d_model
        self.norm2 = nn.LayerNorm(d_model) if hidden else None
        self.mlp = Mlp(d_model, hidden, kernels) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, d_model) to the same."""
        x = self.op(x, self.norm)
        if self.norm2 is not None and self.mlp is not None:
            x = self.mlp(x, self.norm2)
        return x


class SS2D(nn.Module):
    """in_proj, depthwise convolution, SiLU, the four-direction selective scan, norm, gate, out_proj.

    The gate and the convolution's bias belong to the first version of VMamba ("v0", d_state 16).
    """

    def __init__(self, d_model: int, d_state: int, ssm_ratio: int, gate: bool, kernels: Backend) -> None:
        super().__init__()
        d_inner, dt_rank = ssm_ratio * d_model, math.ceil(d_model / 16)
        self.kernels = kernels
        self.gate = gate
        self.in_proj = nn.Linear(d_model, d_inner * (2 if gate else 1), bias=False)
        self.conv2d = Convolution(d_inner, d_inner, 3, padding=1, groups=d_inner, bias=gate)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, dt_rank + 2 * d_state, d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, d_inner, dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, d_inner, dtype=torch.float32))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * d_inner, d_state, dtype=torch.float32))
        self.Ds = nn.Parameter(torch.empty(DIRECTIONS * d_inner, dtype=torch.float32))
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """x + the mixed norm(x); x: (batch, height, width, d_model)."""
        block = x
        x = _norm_linear(x, norm, self.in_proj, self.kernels)
        gate = None
        if self.gate:
            x, gate = x.chunk(2, dim=-1)
        x = depthwise_conv_silu(x.contiguous(), self.conv2d.weight, self.conv2d.bias, backend=self.kernels)
        x = ss2d(
            x,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
            backend=self.kernels,
        )
        if gate is None:
            return _norm_linear(x, self.out_norm, self.out_proj, self.kernels, residual=block)
        x = _layer_norm(x, self.out_norm, self.kernels) * F.silu(gate)
        return linear(x, self.out_proj.weight, residual=block, backend=self.kernels)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, d_model: int, hidden: int, kernels: Backend) -> None:
        super().__init__()
        self.kernels = kernels
        self.fc1 = nn.Linear(d_model, hidden)
        self.fc2 = nn.Linear(hidden, d_model)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """x + MLP(norm(x)); x: (..., d_model)."""
        return norm_mlp(
            x, norm.weight, norm.bias, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias,
            eps=norm.eps, backend=self.kernels,
        )  # fmt: skip


def _norm_linear(
    x: Tensor, norm: nn.LayerNorm, projection: nn.Linear, kernels: Backend, residual: Tensor | None = None
) -> Tensor:
    """projection(norm(x)) + residual, in one kernel where the backend has it."""
    return norm_linear(
        x, norm.weight, norm.bias, projection.weight, projection.bias,
        residual=residual, eps=norm.eps, backend=kernels,
    )  # fmt: skip


def _layer_norm(x: Tensor, norm: nn.LayerNorm, kernels: Backend) -> Tensor:
    """norm(x), by the chosen backend."""
    return layer_norm(x, norm.weight, norm.bias, eps=norm.eps, backend=kernels)


class Convolution(nn.Conv2d):
    """A convolution between channels-last tensors: (batch, height, width, channels) in and out."""

    def forward(self, input: Tensor) -> Tensor:
        """The permutations move no data: torch convolves channels-last memory in place."""
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvolutionNorms(nn.Sequential):
    """Convolutions, each followed by a layer norm, and some of those by GELU."""

    def __init__(self, modules: Mapping[str, nn.Module], kernels: Backend) -> None:
        super().__init__(OrderedDict(modules))
        self.kernels = kernels

    def forward(self, input: Tensor) -> Tensor:
        """(batch, height, width, channels) in and out; each convolution with its norm in one operation."""
        x, modules = input, list(self)
        for convolution, norm, last in zip(modules, modules[1:], [*modules[2:], None], strict=False):
            if isinstance(convolution, Convolution) and isinstance(norm, nn.LayerNorm):
                (stride, _), padding = convolution.stride, convolution.padding[0]
                assert isinstance(padding, int)
                x = convolution_norm(
                    x, convolution.weight, norm.weight, norm.bias,
                    input_bias=convolution.bias, stride=stride, padding=padding,
                    activation="gelu" if isinstance(last, nn.GELU) else None,
                    eps=norm.eps, backend=self.kernels,
                )  # fmt: skip
        return x


class PatchMerging(nn.Module):
    """v0's down-sampling, Swin's: four neighbours side by side, norm, one matrix. Odd edges are cut off."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * d_in, d_out, bias=False)
        self.norm = nn.LayerNorm(4 * d_in)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, d_in) to (batch, ⌊height/2⌋, ⌊width/2⌋, d_out)."""
        height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
        x = x[:, :height, :width]
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class Classifier(nn.Module):
    """Norm, mean over pixels, one matrix."""

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, d_model) to (batch, classes)."""
        return self.head(self.norm(x).mean(dim=(1, 2)))


def _overlapping_embedding(d_model: int) -> dict[str, nn.Module]:
    """Two 3×3 convolutions of stride 2; the keys are the positions in the authors' sequence."""
    return {
        "0": Convolution(3, d_model // 2, 3, stride=2, padding=1),
        "2": nn.LayerNorm(d_model // 2),
        "4": nn.GELU(),
        "5": Convolution(d_model // 2, d_model, 3, stride=2, padding=1),
        "7": nn.LayerNorm(d_model),
    }


def _patches(d_model: int) -> dict[str, nn.Module]:
    """v0's patch embedding: one 4×4 convolution of stride 4."""
    return {"0": Convolution(3, d_model, 4, stride=4), "2": nn.LayerNorm(d_model)}


def _downsample(d_in: int, d_out: int, overlap: bool, kernels: Backend) -> nn.Module:
    if not overlap:
        return PatchMerging(d_in, d_out)
    modules = {"1": Convolution(d_in, d_out, 3, stride=2, padding=1), "3": nn.LayerNorm(d_out)}
    return ConvolutionNorms(modules, kernels)


RENAMED = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"\.op\.(x_proj|dt_projs)\.weight$", r".op.\1_weight"),
    (r"^(norm|head)\.", r"classifier.\1."),
)
"""Names that the authors' code has had, and the ones of their published classification files."""


def _current_name(name: str, overlap: bool) -> str:
    for old, new in RENAMED:
        name = re.sub(old, new, name)
    if not overlap:
        name = name.replace(".downsample.1.", ".downsample.norm.")
        name = name.replace(".downsample.2.", ".downsample.reduction.")
    return name


def _three_dimensional(name: str, tensor: Tensor) -> Tensor:
    """Projections that were saved as one grouped matrix, (4·d_out, d_in[, 1, 1]), as (4, d_out, d_in)."""
    if name.endswith((".x_proj.weight", ".dt_projs.weight")):
        return tensor.view(DIRECTIONS, -1, tensor.shape[1])
    return tensor
