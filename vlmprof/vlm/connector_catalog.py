"""What is known of every connector without building it, and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vlmprof.errors import unknown


@dataclass(frozen=True)
class ConnectorFacts:
    """A multi-layer perceptron from visual tokens to token embeddings; GELU between its layers."""

    name: str
    layers: int
    """Linear layers."""
    source: str

    def widths(self, vision_dim: int, hidden_size: int) -> tuple[int, ...]:
        """Channels before, between and after the layers, from the backbone's to the LLM's."""
        if self.layers == 3:
            return vision_dim, 4 * vision_dim, hidden_size, hidden_size
        return (vision_dim, *(hidden_size for _ in range(self.layers)))

    def parameters(self, vision_dim: int, hidden_size: int) -> int:
        """Weights and biases."""
        widths = self.widths(vision_dim, hidden_size)
        return sum(d_in * d_out + d_out for d_in, d_out in pairwise(widths))


_ENTRIES = {
    facts.name: facts
    for facts in (
        ConnectorFacts("linear", 1, "LLaVA, arXiv 2304.08485"),
        ConnectorFacts("mlp2", 2, "LLaVA-1.5's mlp2x_gelu, arXiv 2310.03744; the study's connector"),
        ConnectorFacts("mlp3", 3, "the study's larger connector, arXiv 2603.19209 (`fused-gelu-mlp`)"),
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
