"""The pipeline of a cell: a VLM composed of parts, or one from transformers with hooks around its stages."""

from __future__ import annotations

import torch

from vlmprof.execution.pipelines.composed import build_composed
from vlmprof.execution.pipelines.pipeline import Pipeline
from vlmprof.settings import Axes, Settings

__all__ = ["Pipeline", "build_pipeline"]


def build_pipeline(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Pipeline:
    """Build a cell's model for images of `size` (height, width) in pixels and join its stages.

    Raises `UserError` if the model cannot be built or does not accept this size, or if `device` does not
    support the mode.
    """
    if axes.vlm is None:
        return build_composed(axes, size, settings, device)
    # importing transformers' image processors takes a second
    from vlmprof.execution.pipelines.hf_vlm import build_hf_vlm

    return build_hf_vlm(axes.vlm, axes, size, settings, device)
