"""Encoders of transformers as a configuration describes them: plain ones, and pyramids of feature levels."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from vlmprof.backbones.checkpoints import part_of
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.geometry import NoGrid
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.token_layout import TokenLayout
from vlmprof.backbones.transformers_plain import hub_weights, interpolate_once

AutoClass = Literal["AutoModel", "AutoBackbone"]


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """The encoder of these facts, on torch's default device and in its default dtype."""
    settings, layout = facts.config["settings"], facts.config["layout"]
    if facts.level is None:
        return HubEncoder(settings, facts.config["auto_class"], layout)
    return HubLevels(settings, facts, options)


class _FromHub(Backbone):
    """Holds the transformers model of a configuration."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """transformers' names, of the encoder alone or of a larger model."""
        return {f"model.{name}": tensor for name, tensor in part_of(state, self.model.state_dict()).items()}

    def fetch(self, source: str) -> dict[str, Tensor]:
        """The hub's weights, as transformers itself reads and renames them."""
        return hub_weights(self.model, source)


class HubEncoder(_FromHub):
    """The last hidden state, or the last feature map of what is an `AutoBackbone` alone.

    An encoder that drops patches at random while it is trained (ViT-MAE) keeps them all, in their order.
    """

    def __init__(self, settings: dict[str, Any], auto_class: AutoClass, layout: TokenLayout | None) -> None:
        config = configuration(settings)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0
        auto = AutoModel if auto_class == "AutoModel" else AutoBackbone
        super().__init__(auto.from_config(config))
        self.layout = layout
        parameters = inspect.signature(type(self.model).forward).parameters
        self.interpolates = "interpolate_pos_encoding" in parameters
        self.takes_noise = "noise" in parameters
        self.takes_mask = "patch_attention_mask" in parameters and hasattr(self.model, "post_layernorm")
        self.patch = getattr(config, "patch_size", None)
        embeddings: Any = getattr(self.model, "embeddings", None)
        if hasattr(embeddings, "interpolate_pos_encoding"):
            interpolate_once(embeddings)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        assert self.layout is not None
        return self.layout.tokens(self.raw(images))

    def raw(self, images: Tensor) -> Tensor:
        """What the model returns, with whatever else it adds to the image's tokens."""
        if self.takes_mask:
            return self._without_padding(images)
        arguments: dict[str, Any] = {"interpolate_pos_encoding": True} if self.interpolates else {}
        if self.takes_noise:
            # patches are sorted by it before some are dropped
            batch, _, height, width = images.shape
            down, across = sides(self.patch)
            arguments["noise"] = torch.arange(
                (height // down) * (width // across), device=images.device
            ).expand(batch, -1)
        output = self.model(pixel_values=images, **arguments)
        if getattr(output, "feature_maps", None) is not None:
            last: Tensor = output.feature_maps[-1]
            return last
        if getattr(output, "last_hidden_state", None) is None:
            raise NoGrid(f"{type(self.model).__name__} returns no last hidden state")
        tokens: Tensor = output.last_hidden_state
        return tokens

    def _without_padding(self, images: Tensor) -> Tensor:
        """Idefics' and SmolVLM's tower for images without padding, which it would look for in every call."""
        batch, _, height, width = images.shape
        down, across = sides(self.patch)
        parts: Any = self.model
        mask = torch.ones(batch, height // down, width // across, dtype=torch.bool, device=images.device)
        embedded = parts.embeddings(pixel_values=images, patch_attention_mask=mask)
        encoded = parts.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state
        tokens: Tensor = parts.post_layernorm(encoded)
        return tokens


class HubLevels(_FromHub):
    """The tapped feature map of an `AutoBackbone`, as its own library hands it to dense models.

    Levels above the tapped one are left out where a configuration of fewer stages gives the same model;
    elsewhere they run too, and `backends` says so.
    """

    def __init__(self, settings: dict[str, Any], facts: BackboneFacts, options: BuildOptions) -> None:
        assert facts.level is not None
        stages = stage_names(configuration(settings))
        size = facts.fixed_size or facts.padded(facts.min_size, facts.min_size)
        cut = cut_settings(settings, facts.level, len(stages), size) if options.levels != "all" else None
        tapped = [stages[facts.level - 1]]
        super().__init__(backbone_from(cut or settings, tapped))
        self.layout: TokenLayout = facts.config["layout"][facts.level - 1]
        if cut is None and options.levels != "all" and facts.level < len(stages):
            self.backends["levels"] = "all"

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        (level,) = self.model(images).feature_maps
        return self.layout.tokens(level)


def configuration(settings: dict[str, Any]) -> PreTrainedConfig:
    """transformers' configuration of these settings, the `model_type` among them."""
    given = {key: value for key, value in settings.items() if key != "model_type"}
    config: PreTrainedConfig = AutoConfig.for_model(settings["model_type"], **given)
    for key, value in vars(config).items():
        # some models add lists to their configuration's, whose own defaults may be tuples
        if isinstance(value, tuple) and key in given:
            setattr(config, key, list(value))
    return config


def backbone_from(settings: dict[str, Any], stages: list[str]) -> PreTrainedModel:
    """The `AutoBackbone` of these settings that returns the maps of these stages."""
    config = configuration(settings)
    config.set_output_features_output_indices(out_features=stages, out_indices=None)
    model: PreTrainedModel = AutoBackbone.from_config(config)
    return model


def stage_names(config: PreTrainedConfig) -> list[str]:
    """The feature levels of a backbone's configuration, finest first; a stem is none."""
    return [name for name in getattr(config, "stage_names", None) or () if name != "stem"]


def cut_settings(
    settings: dict[str, Any], level: int, count: int, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Settings of the same encoder with its first `level` stages of `count` alone; None if there are none.

    Every list with one value per stage is cut, and the result compared with the whole model at a `size` in
    pixels that it takes.
    """
    if level == count:
        return settings
    cut = {
        key: value[:level] if isinstance(value, list) and len(value) == count else value
        for key, value in settings.items()
    }
    for key in ("num_stages", "num_encoder_blocks"):
        if cut.get(key) == count:
            cut[key] = level
    try:
        stages = stage_names(configuration(settings))
        with torch.device("meta"):
            whole = backbone_from(settings, [stages[level - 1]]).eval()
            fewer = backbone_from(cut, [stages[level - 1]]).eval()
            image = torch.empty(1, 3, *size)
            (given,), (wanted,) = fewer(image).feature_maps, whole(image).feature_maps
    except Exception:
        # a configuration that cannot be cut fails in as many ways as there are architectures
        return None
    shapes = {name: tensor.shape for name, tensor in whole.state_dict().items()}
    same = all(shapes.get(name) == tensor.shape for name, tensor in fewer.state_dict().items())
    smaller = len(fewer.state_dict()) < len(shapes)
    return cut if same and smaller and given.shape == wanted.shape else None


def sides(size: Any, default: int = 1) -> tuple[int, int]:
    """(height, width) of a configuration's size, which may be a number, a pair, or absent."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and size and all(isinstance(side, int) for side in size):
        return size[0], size[-1]
    return default, default
