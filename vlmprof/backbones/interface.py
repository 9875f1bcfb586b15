"""What every built backbone is."""

from __future__ import annotations

from torch import Tensor, nn

from vlmprof.backbones import checkpoints
from vlmprof.backbones.catalog import BackboneFacts


class Backbone(nn.Module):
    """A frozen vision encoder. `create_backbone` sets `facts`; a family that has a choice sets `backends`."""

    facts: BackboneFacts
    backends: dict[str, str]
    """Which implementation of each replaceable part runs, such as `{"ss2d": "triton"}`."""

    def __init__(self) -> None:
        super().__init__()
        self.backends = {}

    unused: tuple[str, ...] = ()
    """Regular expressions of names in official weights that this build has no use for, such as heads."""
    optional: tuple[str, ...] = ()
    """Regular expressions of own names that official weights may lack."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to visual tokens (batch, tokens, d_model)."""
        raise TypeError(f"{type(self).__name__} encodes nothing: it must define forward(images)")

    def prepare(self, height: int, width: int) -> None:
        """Do once for a resolution in pixels what need not be done in every call. Optional."""

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Official weights under this module's names. A family whose names differ overrides it."""
        return state

    def fetch(self, source: str) -> dict[str, Tensor]:
        """What `facts.pretrained` names, from a cache or the network, under this module's names."""
        return self.renamed(checkpoints.read(checkpoints.download(source)))
