"""Any encoder of timm, named `timm:NAME`, and MaxViT (Tu et al., arXiv 2204.01697). Extra: `timm`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError, unknown


def facts_of(name: str) -> BackboneFacts:
    """What timm says of `timm:NAME`, from a model without weights. Raises `UserError` for no such model.

    A hierarchical model's sides must be multiples of its coarsest stride: what it does at other sizes
    (round up, round down or fail) is its own.
    """
    timm = import_timm(name)
    model_name = name.removeprefix("timm:")
    if not timm.is_model(model_name):
        raise unknown("timm model", model_name, timm.list_models())
    with torch.device("meta"):
        model = timm.create_model(model_name, pretrained=False)
    finest_first = {entry["reduction"]: entry["num_chs"] for entry in model.feature_info}
    levels = {stride: channels for stride, channels in sorted(finest_first.items()) if stride >= 4}
    coarsest = max(levels)
    hierarchical = len(levels) > 1
    stride = min(levels) if hierarchical else coarsest
    return BackboneFacts(
        name=name,
        family=model_name.split("_")[0],
        size="",
        embed_dim=levels[stride],
        stride=stride,
        min_size=coarsest,
        multiple=coarsest,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        module="vlmprof.backbones.timm_models",
        config={"timm_name": model_name},
        extra="timm",
        level_dims=tuple(levels.values()) if hierarchical else (),
        level=1 if hierarchical else None,
    )


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """The timm model of these facts, on torch's default device and in its default dtype."""
    if facts.level_dims:
        return TimmLevels(facts, options)
    return TimmPlain(facts, options)


class TimmPlain(Backbone):
    """All patch tokens after the final norm; class and register tokens are dropped."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        self.model = _create(facts, options, num_classes=0)
        self.unused = (r"model\.(head|fc_norm)\.",)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        tokens: Tensor = self.model.forward_features(images)
        return tokens[:, getattr(self.model, "num_prefix_tokens", 0) :]

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's names, which the wrapped model has."""
        return {f"model.{name}": tensor for name, tensor in state.items()}

    def fetch(self, source: str) -> dict[str, Tensor]:
        """The weights that timm calls `source`."""
        return self.renamed(_pretrained(self.facts, source))


class TimmLevels(Backbone):
    """The tapped feature level as timm's feature extraction gives it, without a norm after it.

    Built with all levels, the extractor also keeps every level's output until the call ends.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        assert facts.level is not None
        finest = facts.stride >> (facts.level - 1)
        all_levels = options.levels == "all"
        self.strides = [finest << i for i in range(len(facts.level_dims))] if all_levels else [facts.stride]
        self.channels = list(facts.level_dims) if all_levels else [facts.embed_dim]
        self.tap = self.strides.index(facts.stride)
        with torch.device("meta"):
            reductions = [entry["reduction"] for entry in _create(facts, options).feature_info]
        last_of = {reduction: i for i, reduction in enumerate(reductions)}
        indices = [last_of[stride] for stride in self.strides]
        self.model = _create(facts, options, features_only=True, out_indices=indices)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        return self.feature_maps(images)[self.tap].flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every kept level's output, each (batch, channels, height, width):
        all levels when built with all of them, else the tapped one."""
        maps = self.model(images)
        return [
            level if level.shape[1] == channels else level.permute(0, 3, 1, 2)
            for level, channels in zip(maps, self.channels, strict=True)
        ]

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's names; its feature extraction joins the first two parts of a module's name by `_`."""
        own = self.state_dict()
        flat = {f"model.{name.replace('.', '_', 1)}": tensor for name, tensor in state.items()}
        same = {f"model.{name}": tensor for name, tensor in state.items()}
        return {name: tensor for name, tensor in {**flat, **same}.items() if name in own}

    def fetch(self, source: str) -> dict[str, Tensor]:
        """The weights that timm calls `source`."""
        return self.renamed(_pretrained(self.facts, source))


def _pretrained(facts: BackboneFacts, source: str) -> dict[str, Tensor]:
    timm = import_timm(facts.name)
    try:
        state: dict[str, Tensor] = timm.create_model(source, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(f"weights: timm cannot load {source} ({reason})") from problem
    return state


def import_timm(name: str) -> ModuleType:
    """timm, or a `UserError` that says how to install it."""
    try:
        import timm
    except ImportError as problem:
        raise UserError(f"backbone {name!r} needs timm: pip install 'vlmprof[timm]'") from problem
    return timm


def _create(facts: BackboneFacts, options: BuildOptions, **arguments: Any) -> Any:
    """The model for the image size that was asked for, where its construction depends on one."""
    timm = import_timm(facts.name)
    model_name = facts.config["timm_name"]
    if options.image_size is not None:
        try:
            return timm.create_model(model_name, pretrained=False, img_size=options.image_size, **arguments)
        except TypeError as problem:
            if "img_size" not in str(problem):
                raise
    return timm.create_model(model_name, pretrained=False, **arguments)
