"""Where the image's tokens stand in what an encoder returns, found out on tensors without data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vlmprof.backbones.geometry import NoGridError, Seen, grid_of

Kind = Literal["sequence", "channels-first", "channels-last"]

Join = tuple[int, tuple[int, ...]]
"""The tokens of a sequence that was joined of others, and theirs."""


@dataclass(frozen=True)
class TokenLayout:
    """What an encoder returns for one image: a sequence of tokens, or a map."""

    kind: Kind
    before: int = 0
    """Tokens in front of the image's own, such as a class token and registers."""
    after: int = 0
    """Tokens behind them, such as YOLOS' detection tokens."""

    def tokens(self, output: Tensor) -> Tensor:
        """The image's tokens (batch, tokens, channels)."""
        if self.kind == "sequence":
            return output[:, self.before : output.shape[1] - self.after]
        return output.flatten(2).transpose(1, 2) if self.kind == "channels-first" else output.flatten(1, 2)

    def seen(self, output: Tensor) -> Seen:
        """Its sizes."""
        _, tokens, channels = self.tokens(output).shape
        if self.kind == "sequence":
            return Seen(channels, tokens, None)
        rows, columns = output.shape[2:] if self.kind == "channels-first" else output.shape[1:3]
        return Seen(channels, tokens, (rows, columns))


def find_layout(call: Callable[[], Any], size: tuple[int, int], patch: int | None) -> TokenLayout:
    """The layout of the tensor that `call` returns for an image of this size in pixels.

    Extra tokens are found where they are joined to the others; `patch` is the stride that a configuration
    names, if any. Raises `NoGridError` when the output is no grid of tokens over the image.
    """
    with _Joins() as joins:
        output = call()
    return layout_of(output, size, patch, joins.found)


def layout_of(
    output: Any, size: tuple[int, int], patch: int | None, joins: Sequence[Join] = ()
) -> TokenLayout:
    """The layout of an output made of an image of this size in pixels; `joins` as `find_layout` saw them."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or output.shape[0] != 1:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise NoGridError(f"it returns {given}, neither a sequence of tokens nor a map")
    if output.ndim == 4:
        return TokenLayout(_map_kind(output, size))
    return _sequence(output.shape[1], size, patch, joins)


def _map_kind(output: Tensor, size: tuple[int, int]) -> Kind:
    """Whichever pair of axes has the image's proportions; channels come first where both have."""
    _, a, b, c = output.shape
    if grid_of(b * c, size) == (b, c):
        return "channels-first"
    return "channels-last" if grid_of(a * b, size) == (a, b) else "channels-first"


class _Joins(TorchDispatchMode):
    """Notes every concatenation of sequences of tokens while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Join] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default and result.ndim == 3 and len(args) > 1 and args[1] in (1, -2):
            self.found.append((result.shape[1], tuple(part.shape[1] for part in args[0])))
        return result


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
) -> list[tuple[int, int, int]]:
    """(image's tokens, tokens before, tokens after) of which a sequence of this length may be joined."""
    found = [(count, before, after)]
    for total, parts in dict.fromkeys(joins):
        if total != count or not depth:
            continue
        for i, part in sorted(enumerate(parts), key=lambda at: -at[1]):
            if 0 < part < count:
                found += _ways(part, joins, before + sum(parts[:i]), after + sum(parts[i + 1 :]), depth - 1)
    return found
