"""Encoders of transformers as a configuration describes them: plain ones, and ones with feature levels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as fx_config
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel

from vlmprof.backbones.dry_run import built_without_data
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.geometry import NoGridError
from vlmprof.backbones.hub_config import Settings, configuration, encoder_class, inputs_of
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.packed_encoder import PackedEncoder, PatchFormat
from vlmprof.backbones.token_layout import TokenLayout
from vlmprof.backbones.transformers_plain import FromTransformers


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """The encoder of these facts, on torch's default device and in its default dtype."""
    settings = facts.config["settings"]
    if (patches := facts.config.get("patches")) is not None:
        return PackedEncoder(settings, PatchFormat(**patches), facts.embed_dim)
    if facts.level is None:
        return HubEncoder(settings, facts.config["layouts"][0], facts.config["interpolate"])
    return HubLevels(settings, facts, options)


class HubEncoder(FromTransformers):
    """The last hidden state, or the last feature map of a model that gives feature maps alone.

    An encoder that drops patches at random during training (ViT-MAE) keeps all of them, in their order.
    """

    def __init__(self, settings: Settings, layout: TokenLayout | None, interpolate: bool) -> None:
        config = configuration(settings)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0
        model_class = encoder_class(config)
        assert model_class is not None
        super().__init__(model_class._from_config(config))
        self.layout = layout
        inputs = inputs_of(model_class)
        self.interpolates = interpolate and "interpolate_pos_encoding" in inputs
        self.takes_noise = "noise" in inputs
        self.takes_mask = "patch_attention_mask" in inputs and hasattr(self.model, "post_layernorm")
        self.patch = getattr(config, "patch_size", None)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        assert self.layout is not None
        output = self.raw(images)
        if len(output) == 1 < len(images):
            # Pixtral's tower packs the images of a batch into one sequence
            output = output.unflatten(1, (len(images), -1)).squeeze(0)
        return self.layout.tokens(output)

    def raw(self, images: Tensor) -> Tensor:
        """Return the model's own output, any extra tokens included."""
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
        maps, hidden = (getattr(output, name, None) for name in ("feature_maps", "last_hidden_state"))
        result: Tensor | None = maps[-1] if maps else hidden
        if result is None:
            raise NoGridError(f"{type(self.model).__name__} returns no last hidden state")
        return result

    def _without_padding(self, images: Tensor) -> Tensor:
        """Run the tower of Idefics and SmolVLM without its search for padding, which waits for the device."""
        batch, _, height, width = images.shape
        down, across = sides(self.patch)
        parts: Any = self.model
        mask = torch.ones(batch, height // down, width // across, dtype=torch.bool, device=images.device)
        with _full_masks() if images.is_meta else nullcontext():
            embedded = parts.embeddings(pixel_values=images, patch_attention_mask=mask)
        encoded = parts.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state
        tokens: Tensor = parts.post_layernorm(encoded)
        return tokens


def _full_masks() -> AbstractContextManager[object]:
    """Tell torch that masks without data are full: before 5.24 transformers indexes by them."""
    settings: Any = fx_config
    patched: AbstractContextManager[object] = settings.patch(meta_nonzero_assume_all_nonzero=True)
    return patched


class HubLevels(FromTransformers):
    """The tapped feature map of an `AutoBackbone`, in the form that dense models get.

    Levels above the tapped one are left out if a configuration with fewer stages gives the same map.
    Otherwise they run too, and `backends` says so.
    """

    def __init__(self, settings: Settings, facts: BackboneFacts, options: BuildOptions) -> None:
        assert facts.level is not None
        stages = stage_names(configuration(settings))
        size = facts.fixed_size or facts.padded(facts.min_size, facts.min_size)
        above = options.levels != "all" and facts.level < len(stages)
        cut = cut_after(settings, facts.level, len(stages), size) if above else None
        super().__init__(backbone_from(cut.settings if cut else settings, [stages[facts.level - 1]]))
        self.layout: TokenLayout = facts.config["layouts"][facts.level - 1]
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
        """Use transformers' names, without those that the tapped map does not depend on."""
        idle = {f"model.{name}" for name in self.idle}
        return {name: tensor for name, tensor in super().renamed(state).items() if name not in idle}


def backbone_from(settings: Settings, stages: list[str]) -> PreTrainedModel:
    """Build the `AutoBackbone` that returns the maps of these stages."""
    config = configuration(settings)
    config.set_output_features_output_indices(out_features=stages, out_indices=None)
    model: PreTrainedModel = AutoBackbone.from_config(config)
    return model


def stage_names(config: PreTrainedConfig) -> list[str]:
    """Return the names of a backbone's feature levels, finest first, without the stem."""
    return [name for name in getattr(config, "stage_names", None) or () if name != "stem"]


def first_stages(settings: Mapping[str, Any], level: int, count: int) -> Settings:
    """Return the settings of the first `level` of `count` stages: lists with one value per stage are cut."""
    fewer = {
        key: value[:level] if isinstance(value, list) and len(value) == count else value
        for key, value in settings.items()
    }
    return fewer | {key: level for key in ("num_stages", "num_encoder_blocks") if fewer.get(key) == count}


@dataclass(frozen=True)
class Cut:
    """Settings with fewer stages that give the same map of the tapped stage."""

    settings: Settings
    left_out: frozenset[str]
    """Names in the whole model's state that this model lacks."""
    idle: frozenset[str]
    """Its own names that the tapped map does not depend on, such as a last norm's."""


def cut_after(settings: Settings, level: int, count: int, size: tuple[int, int]) -> Cut | None:
    """Return settings with the first `level` of `count` stages, or None if no configuration gives them.

    The tapped map must depend on the same parameters as that of the whole model, which is checked by
    differentiating both at a `size` in pixels that they accept.
    """
    fewer_settings = first_stages(settings, level, count)
    try:
        stage = stage_names(configuration(settings))[level - 1]
        whole, fewer = (
            built_without_data(partial(backbone_from, given, [stage])) for given in (settings, fewer_settings)
        )
        wanted, given = (_parameters_behind(model, size) for model in (whole, fewer))
    except Exception:
        # each architecture fails in its own way if its configuration cannot be cut
        return None
    if wanted != given:
        return None
    names = set(fewer.state_dict())
    idle = {name for name, _ in fewer.named_parameters()} - given.keys()
    return Cut(fewer_settings, frozenset(whole.state_dict().keys() - names), frozenset(idle))


def _parameters_behind(model: PreTrainedModel, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the parameters that a backbone's only feature map depends on."""
    with torch.inference_mode(False), torch.enable_grad():
        (level,) = model(torch.empty(1, 3, *size, device="meta")).feature_maps
        level.sum().backward()
    behind = {name: tuple(p.shape) for name, p in model.named_parameters() if p.grad is not None}
    return {**behind, "": tuple(level.shape)}


def sides(size: Any, default: int = 1) -> tuple[int, int]:
    """Return (height, width) of a size in a configuration, which may be a number, a pair, or absent."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and size and all(isinstance(side, int) for side in size):
        return size[0], size[-1]
    return default, default
