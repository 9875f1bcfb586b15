"""The scaling figure of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from vlmprof.analysis.series import run_figure
from vlmprof.render.figures.six_panel import draw_six_panel
from vlmprof.render.labels import estimated_note

if TYPE_CHECKING:
    from vlmprof.cost.accuracy import Prediction


def estimated_frame(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return predictions as the rows of a run."""
    return pd.DataFrame([prediction.row() for prediction in predictions])


def draw_predictions(predictions: Sequence[Prediction], device_name: str) -> Figure:
    """Draw the panels of the scaling figure for predictions on one device.

    Each title and a note say that the values are estimated. Cells that do not fit are out of memory.
    """
    data = run_figure(estimated_frame(predictions), None, "mean")
    panels = [replace(panel, title=f"{panel.title}, estimated") for panel in data.panels]
    return draw_six_panel(replace(data, panels=panels), note=estimated_note(device_name))
