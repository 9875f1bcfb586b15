"""Any encoder of timm, named `timm:NAME`, and MaxViT (Tu et al., arXiv 2204.01697). Extra: `timm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.dry_run import built_without_data, examine, reason
from vlmprof.backbones.facts import BackboneFacts, BuildOptions, unexamined
from vlmprof.backbones.geometry import NoGridError
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.token_layout import TokenLayout
from vlmprof.errors import UserError, message_of, unknown


def facts_of(name: str) -> BackboneFacts:
    """Return the facts of a model, from its output when it is built and run without data.

    Raises `UserError` for no such model, and for one that gives no grid of tokens.
    """
    timm = import_timm(name)
    model_name = name.removeprefix("timm:")
    if not timm.is_model(model_name):
        raise unknown("timm model", model_name, timm.list_models())
    try:
        return replace(_facts(model_name), name=name)
    except UserError as problem:
        raise UserError(f"backbone {name!r}: {problem}") from problem


@lru_cache(maxsize=64)
def _facts(model_name: str) -> BackboneFacts:
    """The facts of a model, named by timm's name. Raises `UserError` with the reason alone."""
    family, config = model_name.split("_")[0], {"timm_name": model_name}
    draft = unexamined(model_name, family, "vlmprof.backbones.timm_models", config, extra="timm")
    try:
        model = built_without_data(lambda: _create(draft, BuildOptions()))
        native = tuple(model.pretrained_cfg["input_size"][1:])
    except Exception as problem:
        raise UserError(f"timm cannot build it ({reason(problem)})") from problem
    draft = replace(draft, parameters=sum(parameter.numel() for parameter in model.parameters()))
    reductions = sorted({entry["reduction"] for entry in getattr(model, "feature_info", ())})
    reductions = [reduction for reduction in reductions if reduction >= 4]
    found = _levels(draft, native, reductions) if len(reductions) > 1 else None
    return found or _plain(draft, native, reductions[-1] if reductions else None)


def _levels(draft: BackboneFacts, native: tuple[int, int], reductions: list[int]) -> BackboneFacts | None:
    """Return the facts of a model from which timm can take several feature maps, else None."""
    draft = replace(draft, config={**draft.config, "reductions": tuple(reductions)})
    several = replace(draft, level=1, level_dims=(0,) * len(reductions))

    def run(image: Tensor) -> Sequence[Tensor]:
        options = BuildOptions(image_size=(image.shape[2], image.shape[3]), levels="all")
        model: TimmLevels = built_without_data(lambda: TimmLevels(several, options))
        return model.feature_maps(image)

    try:
        return examine(run, [native]).facts(draft)
    except NoGridError:
        raise
    except Exception:
        # timm refuses feature extraction in as many ways as it has families
        return None


def _plain(draft: BackboneFacts, native: tuple[int, int], patch: int | None) -> BackboneFacts:
    def run(image: Tensor) -> tuple[Tensor]:
        options = BuildOptions(image_size=(image.shape[2], image.shape[3]))
        model = built_without_data(lambda: TimmPlain(draft, options))
        return (model.raw(image),)

    try:
        return examine(run, [native], patch).facts(draft)
    except NoGridError:
        raise
    except Exception as problem:
        raise UserError(f"it cannot encode an image ({reason(problem)})") from problem


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """The timm model of these facts, on torch's default device and in its default dtype."""
    if facts.level_dims:
        return TimmLevels(facts, options)
    return TimmPlain(facts, options)


class FromTimm(Backbone):
    """A backbone around one model of timm."""

    def fetch(self, source: str) -> dict[str, Tensor]:
        """The weights that timm calls `source`."""
        return self.renamed(_pretrained(self.facts, source))


class TimmPlain(FromTimm):
    """All patch tokens after the final norm, without class and register tokens."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        self.model = _create(facts, options, num_classes=0)
        if getattr(self.model, "attn_pool", None) is not None:
            self.model.attn_pool = None  # pools tokens for a classifier: up to 8 % of the weights
        self.unused = (r"model\.(head|fc_norm|attn_pool)\.",)
        self.layout: TokenLayout | None = next(iter(facts.config.get("layouts", ())), None)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        assert self.layout is not None
        return self.layout.tokens(self.raw(images))

    def raw(self, images: Tensor) -> Tensor:
        """Return the model's output before its head, any extra tokens included."""
        features: Tensor = self.model.forward_features(images)
        return features

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's names, which the wrapped model has."""
        return {f"model.{name}": tensor for name, tensor in state.items()}


class TimmLevels(FromTimm):
    """The tapped feature level as timm's feature extraction gives it, without a norm after it.

    Built with all levels, the extractor also keeps every level's output until the call ends.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        assert facts.level is not None
        strides = facts.config.get("reductions") or facts.level_strides
        kept = range(len(strides)) if options.levels == "all" else [facts.level - 1]
        self.tap = list(kept).index(facts.level - 1)
        self.channels = [facts.level_dims[i] for i in kept]
        layouts: Sequence[TokenLayout] = facts.config.get("layouts", ())
        self.layouts = [layouts[i] for i in kept] if layouts else None
        with torch.device("meta"):
            reductions = [entry["reduction"] for entry in _create(facts, options).feature_info]
        last_of = {reduction: i for i, reduction in enumerate(reductions)}
        indices = [last_of[strides[i]] for i in kept]
        self.model = _create(facts, options, features_only=True, out_indices=indices)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        if self.layouts is not None:
            return self.layouts[self.tap].tokens(self.model(images)[self.tap])
        return self.feature_maps(images)[self.tap].flatten(2).transpose(1, 2)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(batch, 3, height, width) to every kept level's output, each (batch, channels, height, width):
        all levels when built with all of them, else the tapped one."""
        maps: list[Tensor] = self.model(images)
        if not any(self.channels):
            return maps
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


def _pretrained(facts: BackboneFacts, source: str) -> dict[str, Tensor]:
    timm = import_timm(facts.name)
    try:
        state: dict[str, Tensor] = timm.create_model(source, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as problem:
        raise UserError(f"weights: timm cannot load {source} ({message_of(problem)})") from problem
    return state


def import_timm(name: str) -> ModuleType:
    """Import timm, or raise a `UserError` that says how to install it."""
    try:
        import timm
    except ImportError as problem:
        raise UserError(f"backbone {name!r} needs timm: pip install 'vlmprof[timm]'") from problem
    return timm


def _create(facts: BackboneFacts, options: BuildOptions, **arguments: Any) -> Any:
    """Create the model, for the requested image size if its construction depends on one."""
    timm = import_timm(facts.name)
    model_name = facts.config["timm_name"]
    if options.image_size is not None:
        try:
            return timm.create_model(model_name, pretrained=False, img_size=options.image_size, **arguments)
        except TypeError as problem:
            if "img_size" not in str(problem):
                raise
    return timm.create_model(model_name, pretrained=False, **arguments)
