"""What is known of every backbone without building it, and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmprof.errors import UserError, unknown


@dataclass(frozen=True)
class BackboneFacts:
    """One variant of one family."""

    name: str
    """As written in a spec: `vmamba-t`."""
    family: str
    """As written in a figure's legend: `VMamba`."""
    size: str
    embed_dim: int
    """Channels of each token handed to the connector."""
    stride: int
    """Pixels per token along each side."""
    min_size: int
    """Smallest side in pixels."""
    multiple: int
    """Each side must be a multiple of this many pixels; 1 when any size will do."""
    parameters: int
    """Parameters of the whole backbone as published, without a classification head."""
    module: str
    """Where `build(facts, **options)` is."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The family's own sizes."""
    extra: str | None = None
    """The optional extra that has to be installed, if any."""

    def num_tokens(self, height: int, width: int) -> int:
        """Visual tokens of one image, in pixels. A stride that does not divide a side rounds up."""
        return -(-height // self.stride) * -(-width // self.stride)

    def accepts(self, height: int, width: int) -> bool:
        """Whether an image of this size in pixels can be encoded."""
        return all(side >= self.min_size and side % self.multiple == 0 for side in (height, width))

    def nearest(self, height: int, width: int) -> list[tuple[int, int]]:
        """The nearest sizes that can be encoded, (height, width) in pixels: below and above."""
        below = tuple(max(self.min_size, side // self.multiple * self.multiple) for side in (height, width))
        above = tuple(
            max(self.min_size, -(-side // self.multiple) * self.multiple) for side in (height, width)
        )
        return sorted({(below[0], below[1]), (above[0], above[1])})
