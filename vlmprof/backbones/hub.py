"""Any image encoder that transformers knows, named `hf:NAME-or-path`.

A path is a `config.json` or its folder, and stays offline; a hub name may fetch its configuration. What an
encoder gives is taken from the encoder itself, built and run without data.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from vlmprof.backbones.dry_run import Examined, built_without_data, examine, images, reason
from vlmprof.backbones.facts import BackboneFacts, unexamined
from vlmprof.backbones.geometry import NoGridError
from vlmprof.backbones.grouped_products import GroupedProducts
from vlmprof.backbones.hub_config import (
    IMAGES,
    Settings,
    configuration,
    encoder_class,
    encoder_settings,
    image_parts,
    inputs_of,
    model_classes,
    of_a_vlm,
)
from vlmprof.backbones.hub_encoder import HubEncoder, backbone_from, sides, stage_names
from vlmprof.backbones.packed_encoder import PackedEncoder, packed_class, patch_formats
from vlmprof.errors import UserError

USUAL_SIDES = (224, 256, 384, 512, 640, 1024)
"""Tried in turn if a configuration names no image size."""

FLAGS = ("output_attentions", "output_hidden_states", "return_dict", "interpolate_pos_encoding")
"""Inputs that are no data."""


def facts_of(name: str) -> BackboneFacts:
    """Return what the encoder itself gives.

    Raises `UserError` if there is no configuration, or none of an encoder that gives a grid of tokens for an
    image alone.
    """
    settings = encoder_settings(name)
    found = _facts_or_refusal(json.dumps(settings, sort_keys=True, default=str))
    if isinstance(found, UserError):
        raise UserError(f"backbone {name!r}: {found}") from found
    return replace(found, name=name)


@lru_cache(maxsize=64)
def _facts_or_refusal(settings_json: str) -> BackboneFacts | UserError:
    try:
        return _facts(json.loads(settings_json))
    except UserError as refused:
        return refused.with_traceback(None)


def _facts(settings: Settings) -> BackboneFacts:
    """Return the facts of these settings, without a name. Raises `UserError` with the reason alone."""
    model_type = settings["model_type"]
    draft = unexamined("", model_type, "vlmprof.backbones.hub_encoder", {"settings": settings})
    if model_type == "siglip2_vision_model":
        return _siglip2(draft, settings)
    try:
        _check_inputs(settings)
        if packed_class(configuration(settings)) is not None:
            return _packed(draft, settings)
        found = _levels(settings) if model_type in MODEL_FOR_BACKBONE_MAPPING_NAMES else None
        return found.facts(draft) if found is not None else _plain(draft, settings)
    except NoGridError as problem:
        raise UserError(f"{_what(settings)} has no grid of tokens: {problem}{_advice(settings)}") from problem


def _siglip2(draft: BackboneFacts, settings: Settings) -> BackboneFacts:
    patch = settings["patch_size"]
    return replace(
        draft, module="vlmprof.backbones.siglip2", config=settings, embed_dim=settings["hidden_size"],
        stride=patch, min_size=patch, multiple=patch
    )  # fmt: skip


def _plain(draft: BackboneFacts, settings: Settings) -> BackboneFacts:
    """Examine an encoder with one grid of tokens, in the first way in which it runs."""
    patch = settings.get("patch_size")
    if isinstance(patch, list) and len(patch) == 2 and len({*patch}) == 2:
        raise NoGridError(f"its patches have {patch[0]}x{patch[1]} pixels; only square patches are supported")
    ways = [(settings, True), (settings, False)]
    square = {key: side for key in ("patch_size", "image_size") if (side := _one_side(settings.get(key)))}
    if square:
        # some architectures cannot interpolate their positions, or be built, if these are lists
        ways.insert(1, ({**settings, **square}, True))
    problems: list[Exception] = []
    unbuilt: Exception | None = None
    for way, interpolate in ways:
        try:
            encoder: HubEncoder = built_without_data(partial(HubEncoder, way, None, interpolate))
        except Exception as problem:
            unbuilt = unbuilt or problem
            continue
        try:
            found = _examine_plain(encoder, settings)
        except NoGridError:
            raise
        except Exception as problem:
            problems.append(problem)
            continue
        config = {"settings": way, "interpolate": interpolate}
        return found.facts(replace(draft, config=config))
    if unbuilt is not None and not problems:
        raise _cannot_build(settings, unbuilt) from unbuilt
    others = [name for name in inputs_of(type(encoder.model)) if name not in (IMAGES, *FLAGS)]
    if others and "NoneType" in str(problems[0]):
        raise UserError(_needs_more(settings, others)) from problems[0]
    said = _images_at_a_time(encoder) or f"({reason(problems[0])}){_advice(settings)}"
    raise UserError(f"{_what(settings)} cannot encode an image by itself {said}") from problems[0]


def _packed(draft: BackboneFacts, settings: Settings) -> BackboneFacts:
    """Examine a tower of packed patches, in the first format in which it runs."""
    problems: list[Exception] = []
    for patches in patch_formats(configuration(settings)):
        try:
            encoder = built_without_data(partial(PackedEncoder, settings, patches))
        except Exception as problem:
            raise _cannot_build(settings, problem) from problem

        def run(images: Tensor, encoder: PackedEncoder = encoder) -> tuple[Tensor]:
            with GroupedProducts():
                return (encoder(images),)

        square = patches.side * patches.merge
        try:
            found = examine(run, [(8 * square, 8 * square)], patches.side * patches.order)
        except NoGridError:
            raise
        except Exception as problem:
            problems.append(problem)
            continue
        return found.facts(replace(draft, config={"settings": settings, "patches": asdict(patches)}))
    said = reason(problems[0]) if problems else "its configuration names no patch_size"
    raise UserError(f"{_what(settings)} cannot encode an image by itself ({said}){_advice(settings)}")


def _one_side(size: object) -> int | None:
    """Return the side of a square that is written as a list."""
    return int(size[0]) if isinstance(size, list) and len({*size}) == 1 else None


def _examine_plain(encoder: HubEncoder, settings: Settings) -> Examined:
    patch, _ = sides(settings.get("patch_size"), 0)

    def run(images: Tensor) -> tuple[Tensor]:
        # some encoders keep what they made of the last image's size
        return (copy.deepcopy(encoder).raw(images),)

    return examine(run, _sizes_to_try(settings), patch or None)


def _levels(settings: Settings) -> Examined | None:
    """Examine a backbone whose stages differ in stride; None for one whose stages do not, or do not run."""
    try:
        stages = stage_names(configuration(settings))
        model = built_without_data(lambda: backbone_from(settings, stages))
    except Exception:
        return None

    def run(images: Tensor) -> Sequence[Tensor]:
        maps: Sequence[Tensor] = copy.deepcopy(model)(images).feature_maps
        if len(maps) != len(stages) or len({level.shape[2:] for level in maps}) == 1:
            raise ValueError("its stages are no levels")
        return maps

    try:
        return examine(run, _sizes_to_try(settings))
    except Exception:
        return None


def _check_inputs(settings: Settings) -> None:
    """Raise `UserError` for an architecture that takes anything but images or their patches."""
    try:
        config = configuration(settings)
        classes = list(model_classes(config))
        model_class = encoder_class(config)
    except KeyError:
        raise UserError(f"{_what(settings)} is no image encoder that transformers builds") from None
    except Exception as problem:
        raise _cannot_build(settings, problem) from problem
    if packed_class(config) is not None:
        return
    if model_class is None:
        inputs = inputs_of(classes[0]) if classes else {}
        taken = [name for name, needed in inputs.items() if needed] or [*inputs][:1]
        takes = f": it takes {' and '.join(taken)}, not {IMAGES}" if taken else " that transformers builds"
        raise UserError(f"{_what(settings)} is no image encoder{takes}{_advice(settings)}")
    needed = [name for name, needed in inputs_of(model_class).items() if needed and name != IMAGES]
    if needed:
        raise UserError(_needs_more(settings, needed))


def _images_at_a_time(encoder: HubEncoder) -> str | None:
    """Say how many images an encoder takes at a time, if it takes several, as those of videos do."""
    config: Any = encoder.model.config
    size = sides(getattr(config, "image_size", None), 224)
    counts: tuple[int, ...] = (getattr(config, "num_frames", 16), 2, 8, 16)
    for count in counts:
        try:
            with torch.inference_mode():
                encoder.model(images(*size).expand(count, -1, -1, -1)[None])
        except Exception:
            continue
        return f"(it takes {count} images at a time, as frames of a video)"
    return None


def _needs_more(settings: Settings, inputs: Sequence[str]) -> str:
    return f"{_what(settings)} needs more than an image: {', '.join(inputs)}{_advice(settings)}"


def _advice(settings: Settings) -> str:
    """Say what may be named or measured instead."""
    config = configuration(settings)
    for key, model_type in image_parts(config).items():
        return f"; its {key} ({model_type}), saved as a config.json, may be named by itself"
    return "; its VLM can be measured as a whole, with --vlm" if of_a_vlm(config) else ""


def _cannot_build(settings: Settings, problem: Exception) -> UserError:
    missing = (
        re.search(r"requires the (\w+) library", str(problem)) if isinstance(problem, ImportError) else None
    )
    if missing:
        install = ": pip install 'vlmprof[timm]'" if missing[1] == "timm" else ", which is not installed"
        return UserError(f"{_what(settings)} needs {missing[1]}{install}")
    return UserError(f"{_what(settings)} cannot be built ({reason(problem)})")


def _sizes_to_try(settings: Settings) -> list[tuple[int, int]]:
    """Return the image sizes that a configuration and its parts name, and then the usual ones."""
    return list(dict.fromkeys([*_named_sizes(settings), *((side, side) for side in USUAL_SIDES)]))


def _named_sizes(settings: Settings) -> Iterator[tuple[int, int]]:
    named = sides(settings.get("image_size"), 0)
    if all(named):
        yield named
    for part in settings.values():
        if isinstance(part, dict):
            yield from _named_sizes(part)


def _what(settings: Settings) -> str:
    return f"model type {settings['model_type']!r}"
