"""The base classes of all backbones."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from vlmprof.backbones import checkpoints
from vlmprof.backbones.facts import BackboneFacts, BuildOptions


class Backbone(nn.Module):
    """A frozen vision encoder. `create_backbone` sets `facts`; a family that has a choice sets `backends`."""

    facts: BackboneFacts
    backends: dict[str, str]
    """Which implementation of each replaceable part runs, such as `{"ss2d": "triton"}`."""

    def __init__(self) -> None:
        super().__init__()
        self.backends = {}

    unused: tuple[str, ...] = ()
    """Regular expressions of names in official weights that this model does not have, such as heads."""
    optional: tuple[str, ...] = ()
    """Regular expressions of names in this model that official weights may lack."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to visual tokens (batch, tokens, d_model)."""
        raise TypeError(f"{type(self).__name__} encodes nothing: it must define forward(images)")

    def prepare(self, height: int, width: int) -> None:
        """Compute in advance what depends only on the resolution in pixels. Optional."""

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return official weights under this module's names. A family whose names differ overrides it."""
        return state

    def fetch(self, source: str) -> dict[str, Tensor]:
        """Load `facts.pretrained` from a cache or the network, under this module's names."""
        return self.renamed(checkpoints.read(checkpoints.download(source)))


class HierarchicalBackbone(Backbone):
    """A backbone with feature levels, built up to the tapped one unless all are requested.

    A family defines `run_levels` and `tokens`.
    """

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        assert facts.level is not None
        self.tap = facts.level - 1
        run_all = options.levels == "all" or options.classifier
        self.level_count = len(facts.level_dims) if run_all else facts.level

    def levels_left_out(self, name: str, of: int) -> tuple[str, ...]:
        """Return the names, for `unused`, of the levels in the list `name` that were not built, and of the
        down-sampling before them."""
        if self.level_count == of:
            return ()
        above = (rf"{name}\.{i}\." for i in range(self.level_count, of))
        return (*above, rf"{name}\.{self.level_count - 1}\.downsample")

    def run_levels(self, images: Tensor) -> Iterator[Tensor]:
        """Each built level's output before its down-sampling, in the family's own layout."""
        raise TypeError(f"{type(self).__name__} has no levels: it must define run_levels(images)")

    def tokens(self, level: Tensor) -> Tensor:
        """The tapped level's output as visual tokens (batch, rows·columns, channels)."""
        raise TypeError(f"{type(self).__name__} encodes nothing: it must define tokens(level)")

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to the tapped level's tokens (batch, rows·columns, channels)."""
        tokens = None
        for i, level in enumerate(self.run_levels(images)):
            if i == self.tap:
                tokens = self.tokens(level)
        assert tokens is not None
        return tokens
