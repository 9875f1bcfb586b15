"""What the configuration of a VLM of transformers, `hf:PATH-or-name`, says. Reading a file needs no torch.

A path is a `config.json` or its folder. Anything else is the name of a hub model, and may use the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmprof import files
from vlmprof.backbones.facts import BackboneFacts
from vlmprof.errors import UserError, message_of
from vlmprof.vlm.hf_vlm.support import REFUSED, RUN, why_no_decoding

CONNECTOR = "its own"
"""The value of the axis `connector` for these VLMs."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class HfVLMFacts:
    """One VLM of transformers."""

    name: str
    """As written in a spec: `hf:llava-hf/llava-1.5-7b-hf`."""
    label: str
    """The value of the axis `backbone`: `llava-1.5-7b-hf`."""
    model_type: str
    """transformers' name of the architecture: `llava`."""
    llm: str
    """The value of the axis `llm`: the name of its language model, or else its architecture."""
    geometry: BackboneFacts | None
    """The sizes that it accepts and their visual tokens; `None` if only a forward pass can tell."""


def facts(name: str) -> HfVLMFacts:
    """Return what the configuration says. Raises `UserError` if there is none, or not of a VLM that runs."""
    path = config_path(name)
    config = _from_hub(name) if path is None else _from_file(name, path)
    model_type = str(config.get("model_type"))
    if model_type in REFUSED:
        raise UserError(f"vlm {name!r}: {model_type} is not supported: {REFUSED[model_type]}")
    if not isinstance(config.get("vision_config"), dict) and model_type not in RUN:
        raise UserError(
            f"vlm {name!r}: its model type {model_type!r} has no vision_config; "
            "it must be an image-text-to-text model"
        )
    text = config.get("text_config")
    text = text if isinstance(text, dict) else {}
    language = text.get("_name_or_path") or text.get("model_type") or model_type
    label = source(name).rstrip("/").rsplit("/", 1)[-1] if path is None else path.resolve().parent.name
    return HfVLMFacts(
        name, label, model_type, str(language).rsplit("/", 1)[-1], _geometry(label, model_type, config)
    )


def check_decoding(known: HfVLMFacts) -> None:
    """Raise `UserError` for a VLM that cannot run the stage `decode`."""
    if (why := why_no_decoding(known.model_type)) is not None:
        raise UserError(
            f"stages: {known.model_type} cannot continue from a cache and one token alone: {why}; "
            "leave out decode"
        )


def source(name: str) -> str:
    """Return the name without its prefix, as transformers takes it."""
    return name.removeprefix("hf:")


def config_path(name: str) -> Path | None:
    """Return the path of the configuration, or None for the name of a hub model.

    Raises `UserError` if it is neither.
    """
    path = files.path_of(source(name))
    if files.exists(path):
        return path / "config.json" if path.is_dir() else path
    owner, _, model = source(name).partition("/")
    if not model or "/" in model or path.suffix == ".json" or owner in ("", ".", "..", "~"):
        raise UserError(f"vlm {name!r}: there is no file {path}; a hub model is written hf:OWNER/NAME")
    return None


def _from_file(name: str, path: Path) -> Config:
    try:
        config = files.read_json(path)
    except (OSError, ValueError) as problem:
        raise UserError(f"vlm {name!r}: cannot read {path} as JSON ({problem})") from problem
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"vlm {name!r}: {path} is not a transformers configuration: it has no model_type")
    return config


def _from_hub(name: str) -> Config:
    from transformers import AutoConfig

    try:
        found: Config = AutoConfig.from_pretrained(source(name)).to_dict()
    except (OSError, ValueError, KeyError) as problem:
        said = message_of(problem)
        raise UserError(f"vlm {name!r}: no such file or folder, and no hub model ({said})") from problem
    return found


def _merged_squares(config: Config, vision: Config) -> int:
    return vision["patch_size"] * vision.get("spatial_merge_size", 2)


PIXELS_PER_TOKEN: dict[str, Callable[[Config, Config], float]] = {
    "llava": lambda config, vision: vision["patch_size"],
    "idefics3": lambda config, vision: vision["patch_size"] * config["scale_factor"],
    "smolvlm": lambda config, vision: vision["patch_size"] * config["scale_factor"],
    "internvl": lambda config, vision: _side(vision["patch_size"]) / config["downsample_ratio"],
    "qwen2_vl": _merged_squares,
    "qwen2_5_vl": _merged_squares,
    "qwen3_vl": _merged_squares,
}
"""Pixels per visual token along each side, from the configuration and its vision part."""

SQUARE = ("idefics3", "smolvlm", "internvl")
"""Architectures that take the square root of the number of patches as the length of a side."""


def _geometry(label: str, model_type: str, config: Config) -> BackboneFacts | None:
    """Return the geometry of an architecture that makes one visual token of each square of pixels."""
    if config.get("vision_feature_select_strategy", "default") != "default":
        return None
    try:
        pixels = int(PIXELS_PER_TOKEN[model_type](config, config["vision_config"]))
    except (KeyError, TypeError):
        return None
    return BackboneFacts(
        name=label,
        family=model_type,
        size="",
        embed_dim=0,
        stride=pixels,
        min_size=pixels,
        multiple=pixels,
        square=model_type in SQUARE,
        parameters=None,
        module="vlmprof.vlm.hf_vlm.model",
    )


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list) else size)
