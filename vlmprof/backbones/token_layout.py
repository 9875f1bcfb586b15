"""Where the image's tokens are in the output of an encoder. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vlmprof.backbones.geometry import NoGridError, Seen, grid_of

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["sequence", "channels-first", "channels-last"]

Join = tuple[int, tuple[int, ...]]
"""The length of a concatenated sequence of tokens, and the lengths of its parts."""


@dataclass(frozen=True)
class TokenLayout:
    """The form of an encoder's output for one image: a sequence of tokens, or a map."""

    kind: Kind
    before: int = 0
    """Tokens before those of the image, such as a class token and registers."""
    after: int = 0
    """Tokens after them, such as the detection tokens of YOLOS."""

    def tokens(self, output: Tensor) -> Tensor:
        """Return the image's tokens (batch, tokens, channels)."""
        if self.kind == "sequence":
            return output[:, self.before : output.shape[1] - self.after]
        return output.flatten(2).transpose(1, 2) if self.kind == "channels-first" else output.flatten(1, 2)

    def seen(self, output: Tensor) -> Seen:
        """Return the sizes of an output."""
        _, tokens, channels = self.tokens(output).shape
        if self.kind == "sequence":
            return Seen(channels, tokens, None)
        rows, columns = output.shape[2:] if self.kind == "channels-first" else output.shape[1:3]
        return Seen(channels, tokens, (rows, columns))


def possible_layouts(
    output: Any, size: tuple[int, int], patch: int | None, joins: Sequence[Join] = ()
) -> list[TokenLayout]:
    """Return the layouts that an output for an image of this size in pixels can have, the likeliest first.

    Only a map with as many channels as rows and columns has several. Extra tokens are found by the
    concatenations that were seen; `patch` is the stride that a configuration names, if any. Raises
    `NoGridError` if the output is no grid of tokens over the image.
    """
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) not in (3, 4) or shape[0] != 1:
        given = type(output).__name__ if shape is None else tuple(shape)
        raise NoGridError(f"it returns {given}, neither a sequence of tokens nor a map")
    if len(shape) == 3:
        return [_sequence(shape[1], size, patch, joins)]
    first = grid_of(shape[2] * shape[3], size) == tuple(shape[2:])
    last = grid_of(shape[1] * shape[2], size) == tuple(shape[1:3])
    return [TokenLayout("channels-first")] * (first or not last) + [TokenLayout("channels-last")] * last


def _sequence(count: int, size: tuple[int, int], patch: int | None, joins: Sequence[Join]) -> TokenLayout:
    ways = list(_ways(count, joins, 0, 0, 4))
    if patch:
        rounded = {-(-size[0] // patch) * -(-size[1] // patch), (size[0] // patch) * (size[1] // patch)}
        for inner, before, after in ways:
            if inner in rounded:
                return TokenLayout("sequence", before, after)
    for inner, before, after in ways:
        if inner > 1 and grid_of(inner, size) is not None:
            return TokenLayout("sequence", before, after)
    height, width = size
    raise NoGridError(f"it gives {count:,} tokens for an image of {width}x{height}, which are no grid")


def _ways(
    count: int, joins: Sequence[Join], before: int, after: int, depth: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (image's tokens, tokens before, tokens after) for every way to split a sequence."""
    yield count, before, after
    for total, parts in dict.fromkeys(joins):
        if total != count or not depth:
            continue
        for i, part in sorted(enumerate(parts), key=lambda at: -at[1]):
            if 0 < part < count:
                before_it, after_it = before + sum(parts[:i]), after + sum(parts[i + 1 :])
                yield from _ways(part, joins, before_it, after_it, depth - 1)
