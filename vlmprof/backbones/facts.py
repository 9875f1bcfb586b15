"""What is known of a backbone before it is built, and the options for building it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import lcm
from typing import Any, Literal

from vlmprof.errors import UserError
from vlmprof.settings import KernelBackend

Rounding = Literal["up", "down"]

DEFAULT_LEVEL = 3
"""The feature level that the study tapped: stride 16, one token per 16×16 pixels."""


@dataclass(frozen=True)
class BackboneFacts:
    """One variant of one family, tapped at one feature level."""

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
    """Each side must be a multiple of this many pixels."""
    parameters: int | None
    """Parameters of the whole published model, its classification head included where it has one.
    `None` if unknown."""
    module: str
    """The module whose `build(facts, options)` makes it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The family's own sizes."""
    extra: str | None = None
    """The optional extra that must be installed, if any."""
    level_dims: tuple[int, ...] = ()
    """Channels of every feature level of a hierarchical backbone; empty for a plain one."""
    level_strides: tuple[int, ...] = ()
    """Pixels per token of every feature level."""
    level: int | None = None
    """The tapped feature level, counted from 1; `None` for a plain backbone."""
    pretrained: str | None = None
    """The address of the official weights, or their name in the family's library."""
    rounding: Rounding = "up"
    """Which way a side that the stride does not divide is rounded: `up` or `down`."""
    square: bool = False
    """Whether only square images can be encoded."""
    fixed_size: tuple[int, int] | None = None
    """(height, width) in pixels, if only images of one size can be encoded."""
    grid_multiple: int = 1
    """Rows and columns of tokens must be multiples of this, as a connector that merges tokens requires."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of encoder tokens of an image in pixels."""
        if self.rounding == "down":
            return height // self.stride, width // self.stride
        return -(-height // self.stride), -(-width // self.stride)

    def num_tokens(self, height: int, width: int) -> int:
        """Encoder tokens of one image in pixels."""
        rows, columns = self.grid(height, width)
        return rows * columns

    def accepts(self, height: int, width: int) -> bool:
        """Whether an image of this size in pixels can be encoded, to a grid that can be merged."""
        if any(cells % self.grid_multiple for cells in self.grid(height, width)):
            return False
        if self.fixed_size is not None:
            return (height, width) == self.fixed_size
        fits = all(side >= self.min_size and side % self.multiple == 0 for side in (height, width))
        return fits and (height == width or not self.square)

    def check_size(self, height: int, width: int) -> None:
        """Raise `UserError` for an image that cannot be encoded."""
        if not self.accepts(height, width):
            near = " or ".join(f"{columns}x{rows}" for rows, columns in self.nearest(height, width))
            raise UserError(f"{self.name} cannot encode {width}x{height}; it can encode {near}")

    def nearest(self, height: int, width: int) -> list[tuple[int, int]]:
        """The nearest sizes that can be encoded, (height, width) in pixels: below and above.

        Empty for a backbone of one size whose grid cannot be merged.
        """
        if self.fixed_size is not None:
            return [self.fixed_size] if self.accepts(*self.fixed_size) else []
        shorter = min(height, width)
        below = (shorter, shorter) if self.square else (height, width)
        least, step = self._padding
        rows, columns = (max(least, side // step * step) for side in below)
        return sorted({(rows, columns), self.padded(height, width)})

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size that can be encoded and holds the image, (height, width) in pixels.

        An image that a backbone of one size cannot hold keeps its own.
        """
        if self.accepts(height, width):
            return height, width
        if self.fixed_size is not None:
            holds = height <= self.fixed_size[0] and width <= self.fixed_size[1]
            return self.fixed_size if holds else (height, width)
        longer = max(height, width)
        above = (longer, longer) if self.square else (height, width)
        least, step = self._padding
        rows, columns = (max(least, -(-side // step) * step) for side in above)
        return rows, columns

    @property
    def _padding(self) -> tuple[int, int]:
        """The smallest side in pixels, and the step between sides, of images that are padded."""
        if self.grid_multiple == 1:
            return self.min_size, self.multiple
        step = lcm(self.multiple, self.stride * self.grid_multiple)
        return -(-self.min_size // step) * step, step

    def at_level(self, level: int) -> BackboneFacts:
        """The same backbone tapped at another feature level (1 is the finest).

        For a plain backbone `level` is ignored. Raises `UserError` for a level that it does not have.
        """
        if not self.level_dims:
            return self
        if not 1 <= level <= len(self.level_dims):
            raise UserError(
                f"{self.name} has feature levels 1 to {len(self.level_dims)}; level {level} is none of them; "
                f"{len(self.level_dims)} is the last"
            )
        embed_dim, stride = self.level_dims[level - 1], self.level_strides[level - 1]
        return replace(self, level=level, embed_dim=embed_dim, stride=stride)

    def check_output(self, shape: tuple[int, ...], batch: int, height: int, width: int) -> None:
        """Raise `UserError` unless `shape` is what these facts say of `batch` images of this size."""
        expected = (batch, self.num_tokens(height, width), self.embed_dim)
        if shape != expected:
            raise UserError(
                f"backbone {self.name!r} gave {shape} for an image of {width}x{height}; "
                f"its facts promise (batch, tokens, d_model) = {expected}"
            )


@dataclass(frozen=True)
class BuildOptions:
    """How a backbone is built, whatever its family."""

    image_size: tuple[int, int] | None = None
    """(height, width) in pixels that it will be given, so that it can prepare; other sizes still work."""
    levels: str = "through-tap"
    """`through-tap` runs no level above the tapped one; `all` runs them and throws them away, as the
    study's wrapper did."""
    kernels: KernelBackend = "auto"
    """Backend of the project's own kernels: `auto`, `reference`, `torch` or `triton`."""
    classifier: bool = False
    """Whether to build the published classification head too, for `logits(images)`."""


def hierarchical(
    family: str,
    size: str,
    dims: tuple[int, ...],
    *,
    module: str,
    parameters: int,
    config: Mapping[str, Any],
    name: str | None = None,
    pretrained: str | None = None,
    min_size: int = 32,
    multiple: int = 1,
    rounding: Rounding = "up",
    extra: str | None = None,
) -> BackboneFacts:
    """A backbone with feature levels of stride 4, 8, 16, … and `dims` channels, tapped at DEFAULT_LEVEL.

    `module` is the last part of its module's name; `name` is `family-size` by default.
    """
    strides = tuple(4 << level for level in range(len(dims)))
    return BackboneFacts(
        name=name or catalog_name(family, size),
        family=family,
        size=size,
        embed_dim=dims[DEFAULT_LEVEL - 1],
        stride=strides[DEFAULT_LEVEL - 1],
        min_size=min_size,
        multiple=multiple,
        parameters=parameters,
        module=f"vlmprof.backbones.{module}",
        config=config,
        extra=extra,
        level_dims=dims,
        level_strides=strides,
        level=DEFAULT_LEVEL,
        pretrained=pretrained,
        rounding=rounding,
    )


def doubling(d_model: int) -> tuple[int, int, int, int]:
    """Channels of four levels, each twice as wide as the one before."""
    return d_model, 2 * d_model, 4 * d_model, 8 * d_model


def catalog_name(family: str, size: str) -> str:
    """As written in a spec: `siglip2-b` for size B of `SigLIP 2`."""
    return f"{family.lower().replace(' ', '')}-{size.lower()}"


def unexamined(
    name: str, family: str, module: str, config: Mapping[str, Any], extra: str | None = None
) -> BackboneFacts:
    """Return facts of another library's model whose sizes only the model itself can tell."""
    return BackboneFacts(
        name=name, family=family, size="", embed_dim=0, stride=1, min_size=1, multiple=1, parameters=None,
        module=module, config=config, extra=extra,
    )  # fmt: skip
