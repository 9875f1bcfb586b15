"""Hierarchical encoders through transformers' backbones: Swin and ConvNeXt V2."""

from __future__ import annotations

from torch import Tensor

from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.hub_encoder import backbone_from, first_stages
from vlmprof.backbones.transformers_plain import FromTransformers


class LevelEncoder(FromTransformers):
    """The tapped level after a layer norm, as transformers' and the authors' dense backbones give it.

    A cut encoder is one whose configuration has fewer levels.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        assert facts.level is not None
        built = len(facts.level_dims) if options.levels == "all" else facts.level
        settings = first_stages(facts.config, built, len(facts.level_dims))
        super().__init__(backbone_from(settings, [f"stage{facts.level}"]))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        (level,) = self.model(images).feature_maps
        return level.flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every built level's output before its down-sampling and without a
        norm, each (batch, channels, height, width)."""
        _, *levels = self.model(images, output_hidden_states=True).hidden_states
        return levels


build = LevelEncoder
