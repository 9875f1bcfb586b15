"""Hierarchical encoders through transformers' backbones: Swin and ConvNeXt V2."""

from __future__ import annotations

from torch import Tensor
from transformers import AutoBackbone, AutoConfig

from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.transformers_plain import FromTransformers

PER_LEVEL = ("depths", "num_heads", "hidden_sizes")
"""Configuration entries with one value per feature level."""


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """The encoder of these facts, on torch's default device and in its default dtype."""
    return LevelEncoder(facts, options)


class LevelEncoder(FromTransformers):
    """The tapped level after a layer norm, as transformers' and the authors' dense backbones give it.

    A cut encoder is one whose configuration has fewer levels.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        assert facts.level is not None
        count = len(facts.level_dims) if options.levels == "all" else facts.level
        settings = {
            key: value[:count] if key in PER_LEVEL else value
            for key, value in facts.config.items()
            if key != "model_type"
        }
        if "num_stages" in settings:
            settings["num_stages"] = count
        settings["out_features"] = [f"stage{facts.level}"]
        super().__init__(
            AutoBackbone.from_config(AutoConfig.for_model(facts.config["model_type"], **settings))
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        (level,) = self.model(images).feature_maps
        return level.flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every built level's output before its down-sampling and without a
        norm, each (batch, channels, height, width)."""
        _, *levels = self.model(images, output_hidden_states=True).hidden_states
        return levels
