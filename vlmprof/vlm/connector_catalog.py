"""What is known of every connector without building it, and without torch."""

from __future__ import annotations

from dataclasses import dataclass

from vlmprof.errors import unknown


@dataclass(frozen=True)
class ConnectorFacts:
    """A multi-layer perceptron from visual tokens to token embeddings."""

    name: str
    layers: int
    """Linear layers, with a GELU between each two."""

    def parameters(self, vision_dim: int, hidden_size: int) -> int:
        """Weights and biases, from `vision_dim` channels to the LLM's `hidden_size`."""
        later = (self.layers - 1) * (hidden_size * hidden_size + hidden_size)
        return vision_dim * hidden_size + hidden_size + later


_ENTRIES = {
    facts.name: facts
    for facts in (
        ConnectorFacts("linear", 1),
        ConnectorFacts("mlp2", 2),  # the paper's, LLaVA's mlp2x_gelu
        ConnectorFacts("mlp3", 3),
    )
}


def names() -> list[str]:
    """Every connector known by name."""
    return list(_ENTRIES)


def facts(name: str) -> ConnectorFacts:
    """What is known of a connector. Raises `UserError` for an unknown name."""
    if name not in _ENTRIES:
        raise unknown("connector", name, _ENTRIES)
    return _ENTRIES[name]
