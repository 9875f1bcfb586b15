"""What is known of every backbone without building it, and without torch.

A name is one of `names()`, `timm:NAME`, `hf:NAME-or-path`, or `module:function` for a backbone in the
user's own file. The last three ask timm, transformers or that file, which load torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vlmprof.backbones.users_module import import_users_module
from vlmprof.errors import UserError, unknown

if TYPE_CHECKING:
    from vlmprof.kernels import Backend

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
    """Each side must be a multiple of this many pixels; 1 when any size will do."""
    parameters: int | None
    """Parameters of the whole published model, its classification head included where it has one.
    `None` when nobody said."""
    module: str
    """The module whose `build(facts, options)` makes it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The family's own sizes."""
    extra: str | None = None
    """The optional extra that has to be installed, if any."""
    level_dims: tuple[int, ...] = ()
    """Channels of every feature level of a hierarchical backbone; empty for a plain one."""
    level: int | None = None
    """The tapped feature level, counted from 1; `None` for a plain backbone."""
    pretrained: str | None = None
    """Where official weights are: an address, or what the family's library calls them."""
    rounding: str = "up"
    """Which way a side that the stride does not divide is rounded: `up` or `down`."""
    square: bool = False
    """Whether only square images can be encoded."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of visual tokens of an image in pixels."""
        if self.rounding == "down":
            return height // self.stride, width // self.stride
        return -(-height // self.stride), -(-width // self.stride)

    def num_tokens(self, height: int, width: int) -> int:
        """Visual tokens of one image in pixels."""
        rows, columns = self.grid(height, width)
        return rows * columns

    def accepts(self, height: int, width: int) -> bool:
        """Whether an image of this size in pixels can be encoded."""
        fits = all(side >= self.min_size and side % self.multiple == 0 for side in (height, width))
        return fits and (height == width or not self.square)

    def check_size(self, height: int, width: int) -> None:
        """Raise `UserError` for an image that cannot be encoded."""
        if not self.accepts(height, width):
            near = " or ".join(f"{columns}x{rows}" for rows, columns in self.nearest(height, width))
            raise UserError(f"{self.name} cannot encode {width}x{height}; it can encode {near}")

    def nearest(self, height: int, width: int) -> list[tuple[int, int]]:
        """The nearest sizes that can be encoded, (height, width) in pixels: below and above."""
        shorter = min(height, width)
        below = (shorter, shorter) if self.square else (height, width)
        rows, columns = (max(self.min_size, side // self.multiple * self.multiple) for side in below)
        return sorted({(rows, columns), self.padded(height, width)})

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size that can be encoded and holds the image, (height, width) in pixels."""
        longer = max(height, width)
        above = (longer, longer) if self.square else (height, width)
        rows, columns = (max(self.min_size, -(-side // self.multiple) * self.multiple) for side in above)
        return rows, columns

    def at_level(self, level: int) -> BackboneFacts:
        """The same backbone tapped at another feature level (1 is the finest).

        A plain backbone has one level and takes no notice. Raises `UserError` for a level that is not there.
        """
        if not self.level_dims:
            return self
        if not 1 <= level <= len(self.level_dims):
            raise UserError(
                f"{self.name} has feature levels 1 to {len(self.level_dims)}; level {level} is none of them"
            )
        finest = self.stride >> ((self.level or 1) - 1)
        return replace(self, level=level, embed_dim=self.level_dims[level - 1], stride=finest << (level - 1))


@dataclass(frozen=True)
class BuildOptions:
    """How a backbone is built, whatever its family."""

    image_size: tuple[int, int] | None = None
    """(height, width) in pixels that it will be given, so that it can prepare; other sizes still work."""
    levels: str = "through-tap"
    """`through-tap` runs no level above the tapped one; `all` runs them and throws them away, as the
    study's wrapper did."""
    kernels: Backend = "auto"
    """Backend of the project's own kernels: `auto`, `reference`, `torch` or `triton`."""
    classifier: bool = False
    """Whether to build the published classification head too, for `logits(images)`."""


def names() -> list[str]:
    """Every backbone known by name, family by family."""
    return list(_entries())


def facts(name: str, level: int = DEFAULT_LEVEL) -> BackboneFacts:
    """What is known of a backbone, tapped at a feature level.

    Raises `UserError` for an unknown name or level, or a user's module that cannot be imported.
    """
    entries = _entries()
    if name in entries:
        return entries[name].at_level(level)
    if name.startswith("timm:"):
        from vlmprof.backbones import timm_models

        return timm_models.facts_of(name).at_level(level)
    if name.startswith("hf:"):
        from vlmprof.backbones import hub

        return hub.facts_of(name).at_level(level)
    if ":" in name:
        return users_factory(name).facts.at_level(level)  # type: ignore[attr-defined]
    raise unknown("backbone", name, entries)


def has_feature_levels(name: str) -> bool:
    """Whether a backbone can be tapped at several levels; one that the catalog does not know by name may."""
    entries = _entries()
    return name not in entries or bool(entries[name].level_dims)


def users_factory(name: str) -> Any:
    """The decorated function behind `module:function`; the module is the current folder's, or installed.

    Raises `UserError` in one line when there is no such module or function, or it tells no facts.
    """
    module_name, _, function_name = name.partition(":")
    try:
        factory = getattr(import_users_module(module_name), function_name)
    except (ImportError, ValueError) as problem:
        raise UserError(f"backbone {name!r}: cannot import module {module_name!r} ({problem})") from problem
    except AttributeError as problem:
        raise UserError(f"backbone {name!r}: module {module_name!r} has no {function_name!r}") from problem
    if not isinstance(getattr(factory, "facts", None), BackboneFacts):
        raise UserError(
            f"backbone {name!r} tells no facts; put @vlmprof.backbones.backbone(embed_dim=..., stride=...) "
            f"above {function_name!r}"
        )
    factory.facts = replace(factory.facts, name=name)
    return factory


def _entries() -> dict[str, BackboneFacts]:
    from vlmprof.backbones import families, families_transformers

    return {**families.ENTRIES, **families_transformers.ENTRIES}
