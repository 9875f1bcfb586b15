"""Which attention transformers chose for a model: one kernel of scaled dot products, or its own eager code."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from vlmprof.errors import UserError

SDPA = "sdpa"


def attention_path(module: nn.Module | None) -> str | None:
    """transformers' name of how the models in `module` attend: `sdpa`, or what else any of them does.

    None where there is no such model, or none that attends.
    """
    chosen = [
        str(part.config._attn_implementation)
        for part in (() if module is None else module.modules())
        if isinstance(part, PreTrainedModel) and _attends(part)
    ]
    return next((path for path in chosen if path != SDPA), SDPA if chosen else None)


def check_attention(name: str, module: nn.Module | None, asked: str) -> None:
    """Raise `UserError` if a backend of scaled-dot-product attention is asked of a model that has none."""
    path = attention_path(module)
    if asked != "auto" and path not in (None, SDPA):
        raise UserError(
            f"attention {asked}: {name} attends by transformers' {path} code, which has no backends to "
            "choose from; use auto"
        )


def _attends(model: PreTrainedModel) -> bool:
    return any("Attention" in type(part).__name__ for part in model.modules())
