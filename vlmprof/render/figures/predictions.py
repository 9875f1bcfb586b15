"""The scaling figure of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from vlmprof.analysis.series import run_figure
from vlmprof.records import Status
from vlmprof.render.figures.six_panel import draw_six_panel

if TYPE_CHECKING:
    from vlmprof.cost.accuracy import Prediction


def draw_predictions(predictions: Sequence[Prediction], device_name: str) -> Figure:
    """Draw the panels of the scaling figure for predictions on one device.

    Each title and a note say that the values are estimated. Cells that do not fit are out of memory.
    """
    data = run_figure(pd.DataFrame([_row(each) for each in predictions]), None, "mean")
    panels = [replace(panel, title=f"{panel.title}, estimated") for panel in data.panels]
    note = f"Estimated for {device_name} from counted costs; nothing was measured."
    return draw_six_panel(replace(data, panels=panels), note=note)


def _row(prediction: Prediction) -> dict[str, object]:
    cell, oom_stage = prediction.cell, prediction.estimate.oom_stage
    facts: dict[str, object] = {
        "cell_id": cell.cell_id,
        **cell.axes.named,
        "height_px": cell.height_px,
        "width_px": cell.width_px,
        "status": Status.OK if oom_stage is None else Status.OOM,
        "oom_stage": oom_stage,
        "visual_tokens": prediction.cost.visual_tokens,
    }
    return facts if oom_stage else {**facts, **prediction.figures()}
