"""What is known of a language model without its weights. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LLMFacts:
    """One causal language model, as transformers builds it."""

    name: str
    """As written in a spec: `vicuna-7b`."""
    model_type: str
    """transformers' name of the architecture: `llama`."""
    hidden_size: int
    """Channels of each token embedding: what a connector must produce."""
    vocab_size: int
    layers: int | None
    """`None` when its configuration does not count them."""
    parameters: int | None
    """Tied matrices counted once: as published, or as built of a configuration."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture's transformers configuration."""
    source: str = ""
    """Where the architecture is published, or what it is instead."""
    decodes: bool = True
    """Whether it keeps a state that further tokens go on from."""
    chunks: bool = True
    """Whether several tokens at once go on from it, as chunks of a prompt do."""
    keeps_last_logits: bool = True
    """Whether it can be asked for the logits of the last position alone."""
    attention: str | None = "sdpa"
    """How it attends, as transformers names it: `sdpa`, `eager`, …; None if it does not."""
