"""The numbers that a figure draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

Numbers = npt.NDArray[np.float64]


def xs(line: Line2D) -> Numbers:
    """Where a line's points are from left to right, in data units."""
    return np.asarray(line.get_xdata(), dtype=float)


def ys(line: Line2D) -> Numbers:
    """Where a line's points are from bottom to top, in data units."""
    return np.asarray(line.get_ydata(), dtype=float)


def points_of(line: Line2D) -> Numbers:
    """(points, 2), as `xs` and `ys`."""
    return np.column_stack([xs(line), ys(line)])


def error_bars(axes: Axes) -> list[list[Numbers]]:
    """For each line with error bars the (low, high) of each bar, in data units."""
    bars = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        bars.append([segment[:, 1] for segment in container.lines[2][0].get_segments()])
    return bars
