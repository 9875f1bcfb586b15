"""Load weights into a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlmprof import files
from vlmprof.backbones import checkpoints
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError, message_of

PRETRAINED = "pretrained"
OF_BACKBONES_ALONE = r"model\.hidden_states_norms\."
"""Norms of feature maps, which no checkpoint of a whole model has."""


def load_weights(encoder: Backbone, weights: str) -> None:
    """Load a checkpoint file, or the official weights for `pretrained`, strictly but for heads.

    Raises `UserError` in one line when there are none, they cannot be read, or they do not fit.
    """
    known = encoder.facts
    if weights == PRETRAINED and known.name.startswith("hf:"):
        _load_as_transformers(encoder, known.name.removeprefix("hf:"))
        return
    if weights != PRETRAINED:
        if Path(weights).suffix == ".pkl":
            raise UserError(
                f"weights: {weights} is a bare pickle, which can run any code; save it with torch.save"
            )
        state = encoder.renamed(checkpoints.read(weights))
    elif known.pretrained is None:
        raise UserError(
            f"{known.name} has no official weights that can be loaded safely; give a file instead"
        )
    else:
        state = encoder.fetch(known.pretrained)
    checkpoints.load(encoder, state, weights, unused=encoder.unused, optional=encoder.optional)


def _load_as_transformers(encoder: Any, source: str) -> None:
    """Load the weights of a folder or hub model, whose names transformers translates.

    Raises `UserError` if there are none, or not all that the encoder has.
    """
    path = files.path_of(source)
    place = str(path if path.is_dir() else path.parent) if files.exists(path) else source
    model = encoder.model
    try:
        loaded, info = type(model).from_pretrained(
            place, config=model.config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as problem:
        raise UserError(f"weights: none of {source} can be loaded ({message_of(problem)})") from problem
    found = {key: value for key, value in loaded.state_dict().items() if key not in info["missing_keys"]}
    checkpoints.load(
        encoder, {f"model.{key}": value for key, value in found.items()}, source,
        unused=(".*",), optional=(*encoder.optional, OF_BACKBONES_ALONE),
    )  # fmt: skip
