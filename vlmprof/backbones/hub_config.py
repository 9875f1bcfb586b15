"""Which encoder of transformers a configuration describes: its own, or the vision part of a larger model."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

from vlmprof import files
from vlmprof.errors import UserError, message_of

VISION_PARTS = ("vision_config", "image_config", "vlm_config", "thinker_config", "encoder")
"""Where larger models keep the configuration of their image encoder, or of the VLM that has one."""
NOT_SETTINGS = (
    "dtype", "torch_dtype", "architectures", "transformers_version", "_name_or_path",
    "stage_names", "out_features", "out_indices", "_out_features", "_out_indices",
)  # fmt: skip
"""Entries that follow from the others, or say what a backbone is to return."""

IMAGES = "pixel_values"
"""What transformers calls the images (batch, 3, height, width) that a model takes."""

Settings = dict[str, Any]
"""A configuration as its file has it, with its `model_type`."""


def encoder_settings(name: str) -> Settings:
    """Return the settings of the encoder that `hf:NAME-or-path` names.

    Raises `UserError` if there is no configuration that transformers can read.
    """
    source = name.removeprefix("hf:")
    path = files.path_of(source)
    if path.suffix == ".json" and not files.exists(path):
        raise UserError(f"backbone {name!r}: there is no file {path}")
    try:
        files.check_regular(path)
        config = AutoConfig.from_pretrained(str(path) if files.exists(path) else source)
    except Exception as problem:
        # the configurations check themselves, each with exceptions of its own
        said = message_of(problem)
        raise UserError(
            f"backbone {name!r}: no configuration that transformers can read ({said})"
        ) from problem
    config = vision_part(config)
    settings = {key: value for key, value in config.to_dict().items() if key not in NOT_SETTINGS}
    return {**settings, "model_type": config.model_type}


def vision_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the image encoder in a larger model, or `config` itself."""
    for name in VISION_PARTS:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig) and (name != "encoder" or encoder_class(part) is not None):
            return vision_part(part)
    return config


def configuration(settings: Settings) -> PreTrainedConfig:
    """Return transformers' configuration of these settings."""
    # some configurations take entries out of the parts that they are given
    given = copy.deepcopy({key: value for key, value in settings.items() if key != "model_type"})
    config: PreTrainedConfig = AutoConfig.for_model(settings["model_type"], **given)
    for key, value in vars(config).items():
        # some models add lists to their configuration's, whose own defaults may be tuples
        if isinstance(value, tuple) and key in given:
            setattr(config, key, list(value))
    return config


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that transformers builds from `config`, if it takes images."""
    return next((model for model in model_classes(config) if IMAGES in inputs_of(model)), None)


def inputs_of(model: type[PreTrainedModel]) -> dict[str, bool]:
    """Return the parameters of a model's forward pass by name, and whether they have to be given."""
    parameters = list(inspect.signature(model.forward).parameters.values())[1:]
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return {one.name: one.default is one.empty for one in named}


def of_a_vlm(config: PreTrainedConfig) -> bool:
    """Return whether a configuration is that of a VLM's tower, which no other model has."""
    return type(config).base_config_key in VISION_PARTS


def image_parts(config: PreTrainedConfig) -> dict[str, str]:
    """Return the model types of the parts of a model that take images themselves, by their keys."""
    parts = {key: part for key, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
    return {key: part.model_type for key, part in parts.items() if encoder_class(part) is not None}


def model_classes(config: PreTrainedConfig) -> Iterator[type[PreTrainedModel]]:
    """Yield the classes that are built from `config`, the likeliest first.

    The towers of many VLMs are in no mapping of transformers; they are found in the module of their model.
    """
    for mapping in (MODEL_MAPPING, MODEL_FOR_BACKBONE_MAPPING):
        if type(config) in mapping:
            mapped: Any = mapping[type(config)]
            yield mapped[0] if isinstance(mapped, tuple | list) else mapped
            return
    package, _, name = type(config).__module__.rpartition(".")
    try:
        module = importlib.import_module(f"{package}.{name.replace('configuration_', 'modeling_')}")
    except ImportError:
        return
    own = [
        model
        for model in vars(module).values()
        if isinstance(model, type)
        and issubclass(model, PreTrainedModel)
        and model.config_class is type(config)
    ]
    yield from sorted(own, key=lambda model: (not model.__name__.endswith("Model"), len(model.__name__)))
