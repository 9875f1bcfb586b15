"""Any image encoder that transformers knows, named `hf:NAME-or-path`.

A path is a `config.json` or its folder, and stays offline; a hub name may fetch its configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from vlmprof.backbones.facts import BackboneFacts
from vlmprof.errors import UserError

NOT_SIZES = ("model_type", "dtype", "torch_dtype", "architectures", "transformers_version", "_name_or_path")


def facts_of(name: str) -> BackboneFacts:
    """What the configuration tells. Raises `UserError` when there is none, or no image encoder in it."""
    config = vision_config(name)
    settings = {key: value for key, value in config.to_dict().items() if key not in NOT_SIZES}
    settings["model_type"] = config.model_type
    common: dict[str, Any] = {
        "name": name,
        "family": config.model_type,
        "size": "",
        "parameters": None,
        "config": settings,
    }
    dims = _level_dims(config)
    if dims:
        stride = config.patch_size
        return BackboneFacts(
            embed_dim=dims[0],
            stride=stride,
            min_size=stride << (len(dims) - 1),
            multiple=stride << (len(dims) - 1),
            module="vlmprof.backbones.transformers_levels",
            level_dims=dims,
            level=1,
            **common,
        )
    patch = getattr(config, "patch_size", None)
    hidden_size = getattr(config, "hidden_size", None)
    if not isinstance(patch, int) or not isinstance(hidden_size, int):
        raise UserError(
            f"backbone {name!r}: model type {config.model_type!r} is no image encoder with a grid of patches"
        )
    return BackboneFacts(
        embed_dim=hidden_size,
        stride=patch,
        min_size=patch,
        multiple=patch,
        module="vlmprof.backbones.siglip2"
        if config.model_type == "siglip2_vision_model"
        else "vlmprof.backbones.transformers_plain",
        **common,
    )


def vision_config(name: str) -> PreTrainedConfig:
    """The configuration of the image encoder: the named one, or the vision part of a larger model."""
    source = name.removeprefix("hf:")
    path = Path(source).expanduser()
    if path.suffix == ".json" and not path.is_file():
        raise UserError(f"backbone {name!r}: there is no file {path}")
    try:
        config = AutoConfig.from_pretrained(str(path) if path.exists() else source)
    except (OSError, ValueError, KeyError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(
            f"backbone {name!r}: no configuration that transformers can read ({reason})"
        ) from problem
    return getattr(config, "vision_config", config)


def _level_dims(config: PreTrainedConfig) -> tuple[int, ...]:
    """Channels of each feature level of the hierarchical architectures that have a transformers backbone."""
    if not hasattr(config, "depths") or not hasattr(config, "stage_names"):
        return ()
    if hasattr(config, "hidden_sizes"):
        return tuple(config.hidden_sizes)
    return tuple(config.embed_dim << level for level in range(len(config.depths)))
