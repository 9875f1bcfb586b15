"""Towers that take the patches of all images in one sequence, beside the grid of each: Qwen2-VL's and others.

images (batch, 3, height, width)
  ─ packed ─▶ patches (batch·rows·columns, channels·frames·side²), grid (batch, 3)
  ─ tower ──▶ tokens (batch·rows·columns / merge², d_model) ─▶ (batch, tokens, d_model)
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from vlmprof.backbones.geometry import NoGridError
from vlmprof.backbones.hub_config import IMAGES, Settings, configuration, inputs_of, model_classes
from vlmprof.backbones.known_values import KnownValues
from vlmprof.backbones.transformers_plain import FromTransformers

PATCHES = ("hidden_states", IMAGES)
GRIDS = ("grid_thw", "image_grid_thw")
"""What transformers calls the two inputs."""
CHANNELS_LAST = ("cosmos3_edge_vision",)
"""Model types whose patches have their channels innermost."""
IN_ROWS = ("hunyuan_vl_vision", "hy_v4_vl_vision")
"""Model types whose patches come in rows, although they merge squares of them."""


@dataclass(frozen=True)
class PatchFormat:
    """How a tower wants its patches."""

    side: int
    """Of a patch, in pixels."""
    merge: int
    """Side of the squares of patches that become one token."""
    frames: int
    """How often a still image is repeated in a patch."""
    flat: bool = True
    """Whether a patch is one axis, or else three: channels, rows, columns."""
    channels_last: bool = False
    """Whether the channels are innermost in a patch, or else outermost."""
    in_squares: bool = True
    """Whether the patches of a square are neighbours, or else those of a row of the image."""

    @property
    def order(self) -> int:
        """The side of the squares in whose order the patches come."""
        return self.merge if self.in_squares else 1

    def packed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches of images (batch, 3, height, width), and each one's frames, rows and columns.

        Raises an error unless the sides are multiples of `side` × `merge`.
        """
        batch, channels, height, width = images.shape
        rows, columns, order = height // self.side, width // self.side, self.order
        if rows % self.merge or columns % self.merge:
            # a tower on `meta` may not notice
            raise ValueError(f"{rows}x{columns} patches are no squares of {self.merge}x{self.merge}")
        squares = images.unflatten(2, (rows // order, order, self.side))
        squares = squares.unflatten(5, (columns // order, order, self.side))
        squares = squares.permute(0, 2, 5, 3, 6, 1, 4, 7)
        squares = squares.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, self.frames, -1, -1)
        if self.channels_last:
            squares = squares.movedim(5, -1)
        patches = squares.reshape(batch * rows * columns, -1)
        if not self.flat:
            patches = patches.unflatten(1, (channels, self.side, self.side))
        return patches, torch.tensor([[1, rows, columns]], device=images.device).expand(batch, 3)

    def in_rows(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Return tokens (batch, tokens, d_model) in rows: in squares they are if there is one for a patch."""
        rows, columns = height // self.side, width // self.side
        order = self.order
        if order == 1 or tokens.shape[1] != rows * columns:
            return tokens
        squares = tokens.unflatten(1, (rows // order, columns // order, order, order))
        return squares.transpose(2, 3).flatten(1, 4)


class PackedEncoder(FromTransformers):
    """The tokens that such a tower hands to its language model, in rows."""

    def __init__(self, settings: Settings, patches: PatchFormat, d_model: int | None = None) -> None:
        """`d_model` tells apart outputs that have as many tokens, as for a small image; None to find it."""
        config = configuration(settings)
        model_class = packed_class(config)
        assert model_class is not None
        super().__init__(model_class._from_config(config))
        self.patches = patches
        names = [name for name, needed in inputs_of(model_class).items() if needed]
        self.names = names[0], names[1]
        self.values = KnownValues()
        self.d_model = d_model

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, tokens, d_model)."""
        with self.values if images.is_meta else nullcontext():
            patches, grid = self.patches.packed(images)
            output: Any = self.model(**dict(zip(self.names, (patches, grid), strict=True)))
        counts = {len(patches), len(patches) // self.patches.merge**2}
        either = (getattr(output, name, None) for name in ("pooler_output", "last_hidden_state"))
        given = [
            tensor
            for tensor in either
            if isinstance(tensor, Tensor) and self.d_model in (None, tensor.shape[-1])
        ]
        # some pool all tokens to one, and others merge squares of them
        tokens = next((each for each in given if each.numel() // each.shape[-1] in counts), None)
        if tokens is None:
            found = [f"{each.numel() // each.shape[-1]:,}" for each in given]
            raise NoGridError(f"it gives {' or '.join(found) or 'no'} tokens for {len(patches):,} patches")
        tokens = tokens.reshape(len(images), -1, tokens.shape[-1])
        return self.patches.in_rows(tokens, *images.shape[2:])


def packed_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that transformers builds from `config`, if it takes patches and grids, and no more."""
    for model in model_classes(config):
        needed = [name for name, needed in inputs_of(model).items() if needed]
        if len(needed) == 2 and needed[0] in PATCHES and needed[1] in GRIDS:
            return model
    return None


def patch_formats(config: PreTrainedConfig) -> list[PatchFormat]:
    """Return the formats that a configuration allows, the likeliest first."""
    side, merge, frames = (
        _first_number(config, *names)
        for names in (
            ("patch_size",), ("spatial_merge_size", "merge_kernel_size"), ("temporal_patch_size",)
        )
    )  # fmt: skip
    if side is None:
        return []
    made = PatchFormat(
        side, merge or 1, 1,
        channels_last=config.model_type in CHANNELS_LAST, in_squares=config.model_type not in IN_ROWS,
    )  # fmt: skip
    flat = (replace(made, frames=n) for n in dict.fromkeys((frames or 1, 1)))
    return [*flat, replace(made, flat=False, channels_last=False, in_squares=False)]


def _first_number(config: PreTrainedConfig, *names: str) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        value = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(value, int):
            return value
    return None
