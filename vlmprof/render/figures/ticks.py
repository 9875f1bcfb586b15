"""Resolution ticks whose labels never overlap, selected on every draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from vlmprof.render.figures.text_width import text_width_pt

_GAP_PT = 3.0
"""Smallest space between neighbouring labels, in points."""

_MOST_TICKS = 30


class ResolutionLocator(Locator):
    """Selects the positions whose labels fit at the current size without overlap.

    The largest position is always selected, then every next smaller one that fits. Widths are computed from
    the outlines of the labels, so the selection is the same on every canvas.
    """

    def __init__(self, labels: Mapping[float, str], font_pt: float) -> None:
        self._widths_pt = {
            position: text_width_pt(label, font_pt)
            for position, label in sorted(labels.items(), reverse=True)
        }

    def __call__(self) -> list[float]:
        axes = self.axis.axes  # type: ignore[union-attr]
        points_per_dot = 72 / axes.figure.dpi
        kept: list[float] = []
        free_below = np.inf
        for position, width in self._widths_pt.items():
            dots, _ = axes.transData.transform((position, axes.get_ylim()[0]))
            centre = dots * points_per_dot
            if centre + width / 2 <= free_below:
                kept.append(position)
                free_below = centre - width / 2 - _GAP_PT
        return kept[::-1]

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return the selected positions between two pixel counts."""
        return [position for position in self() if vmin <= position <= vmax]


def scale_sizes(axes: Axes, labels: Mapping[float, str], font_pt: float, log: bool = True) -> None:
    """Scale the x axis for images of these pixel counts, and label as many of them as fit.

    A logarithmic axis keeps neighbouring sizes apart; a linear one starts at 0.
    """
    smallest, largest = min(labels), max(labels)
    if log:
        margin = max(0.07 * np.log(largest / smallest), 0.12)
        axes.set_xscale("log")
        axes.set_xlim(smallest * np.exp(-margin), largest * np.exp(margin))
    else:
        axes.set_xlim(0, largest * (1.06 if len(labels) > 1 else 2.0))
    label_positions(axes, labels, font_pt)


def label_positions(axes: Axes, labels: Mapping[float, str], font_pt: float) -> None:
    """Add labelled ticks at as many of these positions as fit, and a minor tick at each of them if these
    remain distinguishable."""
    axis: XAxis = axes.xaxis
    axis.set_major_locator(ResolutionLocator(labels, font_pt))
    axis.set_major_formatter(FuncFormatter(lambda position, _: labels.get(position, "")))
    axis.set_minor_locator(FixedLocator(sorted(labels)) if len(labels) <= _MOST_TICKS else NullLocator())
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


class _RoundLogLocator(LogLocator):
    """Places ticks at powers of ten, in 1-2-5 steps if the axis spans fewer than two of them, and at equal
    distances if that leaves fewer than two ticks."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        few = np.log10(max(vmax, 1e-300) / max(vmin, 1e-300)) < 2
        self.set_params(subs=(1.0, 2.0, 5.0) if few else (1.0,))
        ticks = super().tick_values(vmin, vmax)
        if sum(vmin <= tick <= vmax for tick in ticks) < 2:
            return MaxNLocator(4).tick_values(vmin, vmax)
        return ticks


def plain_log_labels(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers such as `0.1` and `20` instead of powers of ten."""
    axis.set_major_locator(_RoundLogLocator(base=10, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
