"""Encoders of transformers as a configuration describes them: plain ones, and pyramids of feature levels."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from vlmprof.backbones.checkpoints import part_of
from vlmprof.backbones.dry_run import built_without_data
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.geometry import NoGridError
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
            raise NoGridError(f"{type(self.model).__name__} returns no last hidden state")
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
        above = options.levels != "all" and facts.level < len(stages)
        cut = cut_after(settings, facts.level, len(stages), size) if above else None
        super().__init__(backbone_from(cut.settings if cut else settings, [stages[facts.level - 1]]))
        self.layout: TokenLayout = facts.config["layout"][facts.level - 1]
        self.idle: frozenset[str] = cut.idle if cut else frozenset()
        if cut:
            self.unused = tuple(re.escape(f"model.{name}") for name in cut.left_out)
            self.optional = tuple(re.escape(f"model.{name}") for name in cut.idle)
        elif above:
            self.backends["levels"] = "all"

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        (level,) = self.model(images).feature_maps
        return self.layout.tokens(level)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """transformers' names, without those of what the tapped map does not depend on."""
        idle = {f"model.{name}" for name in self.idle}
        return {name: tensor for name, tensor in super().renamed(state).items() if name not in idle}


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


@dataclass(frozen=True)
class Cut:
    """A backbone's settings with fewer stages, which give the same map of the tapped one."""

    settings: dict[str, Any]
    left_out: frozenset[str]
    """Names in the whole model's state that this one has not."""
    idle: frozenset[str]
    """Its own names that the tapped map does not depend on, such as a last norm's."""


def cut_after(settings: dict[str, Any], level: int, count: int, size: tuple[int, int]) -> Cut | None:
    """The first `level` stages of `count` alone; None where no configuration gives them.

    Every list with one value per stage is cut. The tapped map has to depend on the same parameters as the
    whole model's, which is seen by differentiating both at a `size` in pixels that they take.
    """
    fewer_settings = {
        key: value[:level] if isinstance(value, list) and len(value) == count else value
        for key, value in settings.items()
    }
    for key in ("num_stages", "num_encoder_blocks"):
        if fewer_settings.get(key) == count:
            fewer_settings[key] = level
    try:
        stage = stage_names(configuration(settings))[level - 1]
        whole, fewer = (
            built_without_data(partial(backbone_from, given, [stage])) for given in (settings, fewer_settings)
        )
        wanted, given = (_parameters_behind(model, size) for model in (whole, fewer))
    except Exception:
        # a configuration that cannot be cut fails in as many ways as there are architectures
        return None
    if wanted != given:
        return None
    names = set(fewer.state_dict())
    idle = {name for name, _ in fewer.named_parameters()} - given.keys()
    return Cut(fewer_settings, frozenset(whole.state_dict().keys() - names), frozenset(idle))


def _parameters_behind(model: PreTrainedModel, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that a backbone's one feature map depends on."""
    with torch.inference_mode(False), torch.enable_grad():
        (level,) = model(torch.empty(1, 3, *size, device="meta")).feature_maps
        level.sum().backward()
    behind = {name: tuple(p.shape) for name, p in model.named_parameters() if p.grad is not None}
    return {**behind, "": tuple(level.shape)}


def sides(size: Any, default: int = 1) -> tuple[int, int]:
    """(height, width) of a configuration's size, which may be a number, a pair, or absent."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and size and all(isinstance(side, int) for side in size):
        return size[0], size[-1]
    return default, default
