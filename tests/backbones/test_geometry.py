"""The rule behind an encoder's sizes, found again from made-up encoders whose rule is known."""

from collections.abc import Callable

import pytest

from vlmprof.backbones.geometry import NoGridError, Seen, find_geometry, grid_of

Attempt = Callable[[int, int], list[Seen] | None]


def encoder(
    *strides: int,
    up: bool = False,
    multiple: int = 1,
    least: int = 1,
    square: bool = False,
    as_map: bool = True,
    only: tuple[int, int] | None = None,
) -> Attempt:
    """What `attempt` has to be for an encoder with this rule."""

    def attempt(height: int, width: int) -> list[Seen] | None:
        sides = (height, width)
        wrong = any(side % multiple or side < least for side in sides) or (square and height != width)
        if wrong or (only and sides != only):
            return None
        grids = [tuple(-(-side // stride) if up else side // stride for side in sides) for stride in strides]
        if any(0 in grid for grid in grids):
            return None
        return [Seen(8, rows * columns, (rows, columns) if as_map else None) for rows, columns in grids]

    return attempt


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("strides", [(16,), (4, 8, 16, 32), (2, 4, 8), (8, 16, 32, 32)])
def test_rounding_and_strides(strides: tuple[int, ...], up: bool) -> None:
    found = find_geometry(encoder(*strides, up=up), (224, 224), patch=None, least_step=1)
    assert (found.strides, found.rounding, found.multiple) == (strides, "up" if up else "down", 1)
    assert not found.square
    assert found.fixed_size is None


@pytest.mark.parametrize("multiple", [32, 64, 224])
def test_a_step_between_sides(multiple: int) -> None:
    found = find_geometry(encoder(4, 8, 16, 32, multiple=multiple), (448, 448), patch=None, least_step=1)
    assert found.multiple == multiple
    assert found.min_size == multiple


def test_a_patch_that_does_not_divide_the_configurations_image() -> None:
    found = find_geometry(encoder(14, as_map=False), (384, 384), patch=14, least_step=14)
    assert (found.strides, found.multiple, found.min_size) == ((14,), 14, 14)


def test_smallest_side_and_square_images() -> None:
    found = find_geometry(encoder(8, least=60, square=True), (64, 64), patch=8, least_step=8)
    assert (found.min_size, found.square) == (64, True)


def test_a_stride_that_the_native_size_hides() -> None:
    found = find_geometry(encoder(64, up=True, multiple=32), (224, 224), patch=None, least_step=1)
    assert found.strides == (64,)


def test_a_stride_that_three_sizes_hide() -> None:
    # 224, 280 and 392 divided by 64 and rounded up are the same as divided by 56
    found = find_geometry(encoder(64, up=True), (224, 224), patch=None, least_step=1)
    assert (found.strides, found.rounding, found.multiple) == ((64,), "up", 1)


def test_one_size_alone() -> None:
    found = find_geometry(encoder(16, only=(192, 256)), (192, 256), patch=16, least_step=16)
    assert found.fixed_size == (192, 256)


def queries(height: int, width: int) -> list[Seen]:
    return [Seen(8, 100, None)]


def pooled(height: int, width: int) -> list[Seen]:
    return [Seen(8, 1, None)]


def stretched(height: int, width: int) -> list[Seen]:
    return [Seen(8, (height // 8) * (width // 4), (height // 8, width // 4))]


@pytest.mark.parametrize("attempt", [queries, pooled, stretched])
def test_what_is_no_grid_over_the_image_is_refused(attempt: Attempt) -> None:
    with pytest.raises(NoGridError):
        find_geometry(attempt, (224, 224), patch=None, least_step=1)


def test_rows_and_columns_of_a_sequence() -> None:
    assert grid_of(49, (224, 224)) == (7, 7)
    assert grid_of(32 * 54, (512, 864)) == (32, 54)
    assert grid_of(50, (224, 224)) is None
