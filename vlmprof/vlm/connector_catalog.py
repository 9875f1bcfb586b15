"""What is known of every connector without building it, and without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import Literal

from vlmprof.backbones.facts import BackboneFacts
from vlmprof.errors import UserError, unknown

Kind = Literal["mlp", "pool", "pixel-shuffle", "resampler", "c-abstractor", "ldpv2"]
Grid = tuple[int, int]
"""Rows and columns of encoder tokens."""


@dataclass(frozen=True)
class ConnectorFacts:
    """One connector: from the encoder tokens of an image to its visual tokens."""

    name: str
    kind: Kind
    source: str
    layers: int = 2
    """Linear layers of its multi-layer perceptron, for `mlp` and `pool`."""
    merged: int = 1
    """Rows, and columns, of encoder tokens that become one visual token. The grid must be divisible by it."""
    tokens: int | None = None
    """Visual tokens of every image, if their number is fixed."""

    def visual_tokens(self, grid: Grid) -> int:
        """Return the visual tokens of one image. Raises `UserError` for a grid that cannot be merged."""
        rows, columns = grid
        if rows % self.merged or columns % self.merged:
            raise UserError(
                f"connector {self.name} merges {self.merged} x {self.merged} tokens, which does not divide "
                f"a grid of {columns} x {rows}"
            )
        return self.tokens or rows * columns // self.merged**2

    def visual_grid(self, grid: Grid) -> Grid | None:
        """Return the rows and columns of visual tokens of one image; None if they have no order."""
        if self.kind == "resampler":
            return None
        if self.tokens is not None:
            return isqrt(self.tokens), isqrt(self.tokens)
        return grid[0] // self.merged, grid[1] // self.merged

    def sizes_of(self, backbone: BackboneFacts) -> BackboneFacts:
        """Return a backbone's facts, restricted to images whose grid this connector can merge."""
        return replace(backbone, grid_multiple=self.merged)


_INTERNVL = "InternVL 1.5, arXiv 2404.16821: norm and two linear layers after the shuffle"
_IDEFICS2 = "Idefics 2, arXiv 2405.02246: gated projection, then 3 layers of cross-attention"
_ENTRIES = {
    facts.name: facts
    for facts in (
        ConnectorFacts("linear", "mlp", "LLaVA, arXiv 2304.08485", layers=1),
        ConnectorFacts("mlp2", "mlp", "LLaVA-1.5's mlp2x_gelu, arXiv 2310.03744; the study's connector"),
        ConnectorFacts(
            "mlp3", "mlp", "the study's larger connector, arXiv 2603.19209 (`fused-gelu-mlp`)", layers=3
        ),
        *(
            ConnectorFacts(
                f"pool{k}", "pool", "average pooling before mlp2, as LLaVA-NeXT-Video; arXiv 2405.20985",
                merged=k,
            )
            for k in (2, 4)
        ),
        *(ConnectorFacts(f"pixel-shuffle{k}", "pixel-shuffle", _INTERNVL, merged=k) for k in (2, 4)),
        *(ConnectorFacts(f"resampler-{n}", "resampler", _IDEFICS2, tokens=n) for n in (64, 144, 256)),
        ConnectorFacts("c-abstractor", "c-abstractor", "Honeybee, arXiv 2312.06742", tokens=144),
        ConnectorFacts("ldpv2", "ldpv2", "MobileVLM V2, arXiv 2402.03766", merged=2),
    )
}  # fmt: skip


def names() -> list[str]:
    """Every connector known by name."""
    return list(_ENTRIES)


def facts(name: str) -> ConnectorFacts:
    """What is known of a connector. Raises `UserError` for an unknown name."""
    if name not in _ENTRIES:
        raise unknown("connector", name, _ENTRIES)
    return _ENTRIES[name]
