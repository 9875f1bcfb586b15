"""Plain encoders through transformers: CLIP, SigLIP, DINOv2, DINOv3, and others with one grid of tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from vlmprof.backbones.checkpoints import part_of
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.hub_config import Settings, configuration, inputs_of
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError, message_of


def from_config(settings: Settings) -> PreTrainedModel:
    """transformers' base model of these settings, built under the current default device and dtype."""
    model: PreTrainedModel = AutoModel.from_config(configuration(settings))
    return model


class FromTransformers(Backbone):
    """A backbone around one model of transformers, whose names its weights have."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        embeddings: Any = getattr(model, "embeddings", None)
        if hasattr(embeddings, "interpolate_pos_encoding"):
            interpolate_once(embeddings)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Use transformers' names, of the encoder alone or of a larger model."""
        return {f"model.{name}": tensor for name, tensor in part_of(state, self.model.state_dict()).items()}

    def fetch(self, source: str) -> dict[str, Tensor]:
        """Load the hub's weights as transformers itself reads and renames them."""
        return hub_weights(self.model, source)


class PlainEncoder(FromTransformers):
    """The last hidden state's patch tokens, without the class and register tokens before them."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        head = {"vision_use_head": options.classifier} if "siglip" in facts.config["model_type"] else {}
        super().__init__(from_config({**facts.config, **head}))
        self.grid = facts.grid
        self.interpolates = "interpolate_pos_encoding" in inputs_of(type(self.model))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        arguments = {"interpolate_pos_encoding": True} if self.interpolates else {}
        tokens: Tensor = self.model(images, **arguments).last_hidden_state
        rows, columns = self.grid(images.shape[2], images.shape[3])
        return tokens[:, tokens.shape[1] - rows * columns :]


build = PlainEncoder


def hub_weights(model: PreTrainedModel, source: str) -> dict[str, Tensor]:
    """The weights of a hub model of the same class, under the names of a module that calls it `model`.

    Raises `UserError` in one line when they can neither be found nor fetched.
    """
    try:
        other = type(model).from_pretrained(source, config=model.config)
    except (OSError, ValueError, RuntimeError) as problem:
        raise UserError(f"weights: cannot load {source} ({message_of(problem)})") from problem
    return {f"model.{name}": tensor for name, tensor in other.state_dict().items()}


def interpolate_once(embeddings: Any) -> None:
    """Keep the positions of the last resolution: transformers interpolates them anew in every call."""
    embeddings.interpolate_pos_encoding = keep_last(embeddings.interpolate_pos_encoding, _sizes)


def _sizes(*args: Any, **kwargs: Any) -> Hashable:
    given = (*args, *kwargs.values())
    return tuple(
        (arg.shape[1:] if arg.ndim else arg.item()) if isinstance(arg, Tensor) else arg for arg in given
    )


def keep_last(make: Callable[..., Tensor], key: Callable[..., Hashable]) -> Callable[..., Tensor]:
    """`make`, called anew only when `key` of its arguments differs from the last call's."""
    kept: dict[Hashable, Tensor] = {}

    def kept_or_new(*args: Any, **kwargs: Any) -> Tensor:
        at = key(*args, **kwargs)
        if at not in kept:
            kept.clear()
            kept[at] = make(*args, **kwargs)
        return kept[at]

    return kept_or_new
