"""Load weights into a backbone."""

from __future__ import annotations

from pathlib import Path

from vlmprof.backbones import checkpoints
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError

PRETRAINED = "pretrained"


def load_weights(encoder: Backbone, weights: str) -> None:
    """Load a checkpoint file, or the official weights for `pretrained`, strictly but for heads.

    Raises `UserError` in one line when there are none, they cannot be read, or they do not fit.
    """
    known = encoder.facts
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
