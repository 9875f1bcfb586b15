"""Any image encoder that transformers knows, named `hf:NAME-or-path`.

A path is a `config.json` or its folder, and stays offline; a hub name may fetch its configuration. What an
encoder gives is found out from the encoder itself, built and run without data.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_BACKBONE_MAPPING_NAMES,
    MODEL_MAPPING,
    MODEL_MAPPING_NAMES,
)

from vlmprof import files
from vlmprof.backbones.dry_run import built_without_data, images, reason
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.backbones.geometry import Geometry, NoGridError, Seen, find_geometry
from vlmprof.backbones.hub_encoder import (
    AutoClass,
    HubEncoder,
    backbone_from,
    configuration,
    sides,
    stage_names,
)
from vlmprof.backbones.token_layout import TokenLayout, find_layout, layout_of
from vlmprof.errors import UserError

NOT_SIZES = ("model_type", "dtype", "torch_dtype", "architectures", "transformers_version", "_name_or_path")
NOT_SETTINGS = (*NOT_SIZES, "stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
"""Entries that follow from the others, or say what a backbone is to return."""
USUAL_SIDES = (224, 256, 384, 512, 640, 1024)
"""Tried in turn where a configuration names no image size."""


def facts_of(name: str) -> BackboneFacts:
    """What the encoder itself gives. Raises `UserError` when there is no configuration, no image encoder in
    it, or none that gives a grid of tokens for an image alone."""
    config = vision_config(name)
    settings = {key: value for key, value in config.to_dict().items() if key not in NOT_SETTINGS}
    settings["model_type"] = config.model_type
    try:
        facts = _facts(json.dumps(settings, sort_keys=True, default=str))
    except UserError as problem:
        raise UserError(f"backbone {name!r}: {problem}") from problem
    return replace(facts, name=name)


def vision_config(name: str) -> PreTrainedConfig:
    """The configuration of the image encoder: the named one, or the vision part of a larger model."""
    source = name.removeprefix("hf:")
    path = Path(source).expanduser()
    if path.suffix == ".json" and not files.exists(path):
        raise UserError(f"backbone {name!r}: there is no file {path}")
    try:
        files.check_regular(path)
        config = AutoConfig.from_pretrained(str(path) if files.exists(path) else source)
    except (OSError, ValueError, KeyError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(
            f"backbone {name!r}: no configuration that transformers can read ({reason})"
        ) from problem
    return getattr(config, "vision_config", config)


@lru_cache(maxsize=64)
def _facts(settings_json: str) -> BackboneFacts:
    """The facts of these settings, without a name. Raises `UserError` with the reason alone."""
    settings: dict[str, Any] = json.loads(settings_json)
    model_type = settings["model_type"]
    if model_type == "siglip2_vision_model":
        return _siglip2(settings)
    if model_type in MODEL_FOR_BACKBONE_MAPPING_NAMES:
        found = _pyramid(settings)
        if found is not None:
            return found
    return _plain(settings)


def _siglip2(settings: dict[str, Any]) -> BackboneFacts:
    patch = settings["patch_size"]
    geometry = Geometry((patch,), "up", patch, patch)
    return _described(settings, geometry, (settings["hidden_size"],), "siglip2", settings)


def _plain(settings: dict[str, Any]) -> BackboneFacts:
    auto_class: AutoClass = "AutoModel" if settings["model_type"] in MODEL_MAPPING_NAMES else "AutoBackbone"
    _check_inputs(settings, auto_class)
    try:
        encoder: HubEncoder = built_without_data(lambda: HubEncoder(settings, auto_class, None))
    except Exception as problem:
        raise _cannot_build(settings, problem) from problem
    patch, _ = sides(settings.get("patch_size"), 0)

    def raw(height: int, width: int) -> torch.Tensor:
        # some encoders keep what they made of the last image's size
        with torch.inference_mode():
            return copy.deepcopy(encoder).raw(images(height, width))

    layout, native = _first_that_runs(settings, raw, patch)

    def attempt(height: int, width: int) -> Sequence[Seen] | None:
        try:
            return (layout.seen(raw(height, width)),)
        except Exception:
            return None

    seen = attempt(*native)
    assert seen is not None
    least_step = patch if seen[0].grid is None and seen[0].tokens == _patches(native, patch) else 1
    geometry = _geometry(settings, attempt, native, patch, least_step)
    config = {"settings": settings, "auto_class": auto_class, "layout": layout}
    return _described(settings, geometry, (seen[0].channels,), "hub_encoder", config)


def _first_that_runs(
    settings: dict[str, Any], raw: Callable[[int, int], torch.Tensor], patch: int
) -> tuple[TokenLayout, tuple[int, int]]:
    """The layout of what the encoder returns for the first size that it takes, and that size."""
    problems = []
    for size in _sizes_to_try(settings):
        try:
            return find_layout(partial(raw, *size), size, patch), size
        except NoGridError as problem:
            raise UserError(f"{_what(settings)} has no grid of tokens: {problem}") from problem
        except Exception as problem:
            problems.append(problem)
    said = reason(problems[0])
    raise UserError(f"{_what(settings)} cannot encode an image by itself ({said})") from problems[0]


def _pyramid(settings: dict[str, Any]) -> BackboneFacts | None:
    """The facts of a backbone whose stages differ in stride; None for one whose stages do not."""
    _check_inputs(settings, "AutoBackbone")
    try:
        stages = stage_names(configuration(settings))
        model = built_without_data(lambda: backbone_from(settings, stages))
    except Exception as problem:
        raise _cannot_build(settings, problem) from problem
    layouts: list[TokenLayout] = []

    def attempt(height: int, width: int) -> Sequence[Seen] | None:
        try:
            with torch.inference_mode():
                maps = copy.deepcopy(model)(images(height, width)).feature_maps
        except Exception:
            return None
        if len(maps) != len(stages):
            return None
        layouts[:] = layouts or [layout_of(level, (height, width), None) for level in maps]
        return [layout.seen(level) for layout, level in zip(layouts, maps, strict=True)]

    tried = ((size, attempt(*size)) for size in _sizes_to_try(settings))
    native, seen = next(((size, seen) for size, seen in tried if seen), ((0, 0), None))
    if not seen or len({level.tokens for level in seen}) == 1:
        return None
    geometry = _geometry(settings, attempt, native, None, 1)
    config = {"settings": settings, "layout": tuple(layouts)}
    channels = tuple(level.channels for level in seen)
    return _described(settings, geometry, channels, "hub_encoder", config, pyramid=True)


def _described(
    settings: dict[str, Any],
    geometry: Geometry,
    channels: tuple[int, ...],
    module: str,
    config: dict[str, Any],
    *,
    pyramid: bool = False,
) -> BackboneFacts:
    return BackboneFacts(
        name="",
        family=settings["model_type"],
        size="",
        embed_dim=channels[0],
        stride=geometry.strides[0],
        min_size=geometry.min_size,
        multiple=geometry.multiple,
        parameters=None,
        module=f"vlmprof.backbones.{module}",
        config=config,
        level_dims=channels if pyramid else (),
        level_strides=geometry.strides if pyramid else (),
        level=1 if pyramid else None,
        rounding=geometry.rounding,
        square=geometry.square,
        fixed_size=geometry.fixed_size,
    )


def _check_inputs(settings: dict[str, Any], auto_class: AutoClass) -> None:
    """Raise `UserError` for an architecture that takes anything but images."""
    mapping = MODEL_MAPPING if auto_class == "AutoModel" else MODEL_FOR_BACKBONE_MAPPING
    try:
        config = configuration(settings)
        model_class: Any = mapping[type(config)]
    except KeyError:
        raise UserError(f"{_what(settings)} is no image encoder that transformers builds") from None
    except Exception as problem:
        raise _cannot_build(settings, problem) from problem
    if isinstance(model_class, tuple | list):
        model_class = model_class[0]
    parameters = inspect.signature(model_class.forward).parameters
    if "pixel_values" not in parameters:
        raise UserError(f"{_what(settings)} is no image encoder: it takes no pixel_values")
    needed = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in ("self", "pixel_values")
    ]
    if needed:
        raise UserError(f"{_what(settings)} needs more than an image: {', '.join(needed)}")


def _geometry(
    settings: dict[str, Any], attempt: Any, native: tuple[int, int], patch: int | None, least_step: int
) -> Geometry:
    try:
        return find_geometry(attempt, native, patch=patch, least_step=least_step)
    except NoGridError as problem:
        raise UserError(f"{_what(settings)} has no grid of tokens: {problem}") from problem


def _cannot_build(settings: dict[str, Any], problem: Exception) -> UserError:
    return UserError(f"{_what(settings)} cannot be built ({reason(problem)})")


def _patches(size: tuple[int, int], patch: int) -> int:
    return (size[0] // patch) * (size[1] // patch) if patch else 0


def _sizes_to_try(settings: dict[str, Any]) -> list[tuple[int, int]]:
    """Image sizes that a configuration names, its own and its parts', and then the usual ones."""
    return list(dict.fromkeys([*_named_sizes(settings), *((side, side) for side in USUAL_SIDES)]))


def _named_sizes(settings: dict[str, Any]) -> Iterator[tuple[int, int]]:
    named = sides(settings.get("image_size"), 0)
    if all(named):
        yield named
    for part in settings.values():
        if isinstance(part, dict):
            yield from _named_sizes(part)


def _what(settings: dict[str, Any]) -> str:
    return f"model type {settings['model_type']!r}"
