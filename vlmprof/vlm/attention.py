"""Which attention transformers chose for a model: scaled-dot-product kernels, or its own eager code."""

from __future__ import annotations

from collections.abc import Mapping

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
        if isinstance(part, PreTrainedModel)
        and any("Attention" in type(inner).__name__ for inner in part.modules())
    ]
    return next((path for path in chosen if path != SDPA), SDPA if chosen else None)


def attention_run(
    parts: Mapping[str, tuple[str, nn.Module | None]],
) -> tuple[dict[str, str], list[str]]:
    """The backends and warnings of those `parts`, a name and a module each, that have no such kernels."""
    paths = {part: (name, attention_path(module)) for part, (name, module) in parts.items()}
    others = {part: (name, path) for part, (name, path) in paths.items() if path not in (None, SDPA)}
    warnings = [
        f"{name} uses transformers' {path} attention: it does not support scaled-dot-product attention"
        for name, path in others.values()
    ]
    return {f"{part}_attention": str(path) for part, (_, path) in others.items()}, warnings


def check_attention(name: str, module: nn.Module | None, asked: str) -> None:
    """Raise `UserError` if a backend of scaled-dot-product attention is asked of a model that has none."""
    path = attention_path(module)
    if asked != "auto" and path not in (None, SDPA):
        raise UserError(
            f"attention {asked}: {name} attends by transformers' {path} code, which has no backends to "
            "choose from; use auto"
        )
