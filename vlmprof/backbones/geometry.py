"""Find the image sizes that an encoder accepts, and its number of tokens for each, by trial. No torch.

An encoder of another library is run at several sizes (on tensors without data). The result is the simplest
rule that agrees with all of them: a stride for each feature level, a rounding, and a step between sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

from vlmprof.backbones.facts import Rounding
from vlmprof.errors import UserError

STEPS = (1, 2, 4, 7, 8, 14, 16, 32)
"""Windows and pooled queries may require sides that are multiples of these times the coarsest stride."""
USUAL_STRIDES = tuple(1 << i for i in range(11))


@dataclass(frozen=True)
class Seen:
    """The output of one feature level for one image."""

    channels: int
    tokens: int
    grid: tuple[int, int] | None
    """Rows and columns of a map; None for a sequence of tokens."""


Try = Callable[[int, int], Sequence[Seen] | None]
"""Return each feature level's output for an image of (height, width) in pixels; None if the encoder fails."""


@dataclass(frozen=True)
class Geometry:
    """Fields as in `BackboneFacts`; `strides` has one for each feature level."""

    strides: tuple[int, ...]
    rounding: Rounding
    multiple: int
    min_size: int
    square: bool = False
    fixed_size: tuple[int, int] | None = None


class NoGridError(UserError):
    """The encoder's output is not a grid of tokens over the image."""


def find_geometry(attempt: Try, native: tuple[int, int], *, patch: int | None, least_step: int) -> Geometry:
    """Return the rule that agrees with `attempt`, which accepts `native`, (height, width) in pixels.

    `patch` is the stride that a configuration names, if any: it decides where a size allows several. Sides
    are multiples of at least `least_step`, so that no pixel is lost to a patch that does not fit. Raises
    `NoGridError`.
    """
    first = attempt(*native)
    assert first is not None
    choices = [_strides(seen, native, patch) for seen in first]
    found: list[Geometry] = []
    problems: list[NoGridError] = []
    for strides in dict.fromkeys((tuple(c[0] for c in choices), tuple(c[-1] for c in choices))):
        try:
            geometry = _rule(attempt, native, strides, least_step)
        except NoGridError as problem:
            problems.append(problem)
            continue
        if geometry.fixed_size is None and geometry.multiple <= least_step:
            return geometry
        found.append(geometry)
    if not found:
        raise problems[0]
    # both rules agree with every output; the one that accepts fewer sizes does so by coincidence
    return min(found, key=lambda geometry: (geometry.fixed_size is not None, geometry.multiple))


def _rule(attempt: Try, native: tuple[int, int], strides: tuple[int, ...], least_step: int) -> Geometry:
    """Return the rule with these strides."""
    coarsest = max(strides)
    for step in dict.fromkeys((least_step, *(coarsest * times for times in STEPS))):
        base = -(-max(native) // step) * step
        offsets = (0, 1, coarsest // 2, coarsest - 1, coarsest + 1) if step == 1 else (0, step, 3 * step)
        possible = _roundings(step % coarsest == 0)
        for side in (base + offset for offset in offsets):
            seen = attempt(side, side)
            possible = tuple(way for way in possible if _agrees(seen, strides, way, (side, side)))
            if not possible and seen is not None and side % coarsest == 0:
                raise NoGridError(f"its tokens for {side}x{side} are not the sides divided by one stride")
            if not possible:
                break
        if possible:
            return _with_limits(attempt, strides, possible[0], step, base)
    for rounding in _roundings(False):
        if _agrees(attempt(*native), strides, rounding, native):
            return Geometry(strides, rounding, 1, min(native), fixed_size=native)
    raise NoGridError("its tokens are not the image's sides divided by one stride")


def grid_of(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the rows and columns of a sequence of tokens for an image of this size, if it is a grid."""
    height, width = size
    if height == width:
        side = isqrt(tokens)
        return (side, side) if side * side == tokens else None
    pairs = ((rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0)
    return next((pair for pair in pairs if any(_strides_between(pair, size))), None)


def _strides_between(grid: tuple[int, int], size: tuple[int, int]) -> Iterator[int]:
    """Yield the strides that give this grid for this size, rounded down or up."""
    for up in (False, True):
        for stride in range(1, max(size) + 1):
            if all(_divided(side, stride, up) == cells for side, cells in zip(size, grid, strict=True)):
                yield stride


def _divided(side: int, stride: int, up: bool) -> int:
    return -(-side // stride) if up else side // stride


def _strides(seen: Seen, size: tuple[int, int], patch: int | None) -> list[int]:
    """Return the possible strides of a feature level, the likeliest first: one that divides the image, then
    the one that the configuration names or a usual one."""
    grid = seen.grid or grid_of(seen.tokens, size)
    height, width = size
    if grid is None:
        raise NoGridError(
            f"it gives {seen.tokens:,} tokens for an image of {width}x{height}, which are no grid"
        )
    if grid == (1, 1):
        raise NoGridError(f"it gives one token for an image of {width}x{height}")
    possible = list(_strides_between(grid, size))
    if not possible:
        raise NoGridError(f"it gives a grid of {grid[0]} x {grid[1]} for an image of {width}x{height}")
    exact = [stride for stride in possible if stride * grid[0] == height and stride * grid[1] == width]
    usual = [stride for stride in (*((patch,) if patch else ()), *USUAL_STRIDES) if stride in possible]
    return [*exact, *usual[:1]] or possible[:1]


def _roundings(divides: bool) -> tuple[Rounding, ...]:
    return ("up",) if divides else ("up", "down")


def _agrees(
    seen: Sequence[Seen] | None, strides: Sequence[int], rounding: Rounding, size: tuple[int, int]
) -> bool:
    if seen is None or len(seen) != len(strides):
        return False
    for level, stride in zip(seen, strides, strict=True):
        rows, columns = (_divided(side, stride, rounding == "up") for side in size)
        if level.tokens != rows * columns or level.grid not in (None, (rows, columns)):
            return False
    return True


def _with_limits(
    attempt: Try, strides: tuple[int, ...], rounding: Rounding, step: int, base: int
) -> Geometry:
    """Complete a rule with the smallest side, and with whether sides may differ."""
    coarsest = max(strides)

    def takes(height: int, width: int) -> bool:
        return _agrees(attempt(height, width), strides, rounding, (height, width))

    sides = sorted({-(-(coarsest << i) // step) * step for i in range(8)})
    smallest = next((side for side in sides if side < base and takes(side, side)), base)
    longer = base + 2 * max(step, coarsest)
    square = not (takes(base, longer) and takes(longer, base))
    return Geometry(strides, rounding, step, smallest, square)
