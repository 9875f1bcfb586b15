"""The pipeline of a cell: a VLM composed of parts, or one of transformers with its stages marked by hooks."""

from __future__ import annotations

import torch

from vlmprof.execution.pipelines.composed import build_composed
from vlmprof.execution.pipelines.pipeline import Pipeline
from vlmprof.settings import Axes, Settings

__all__ = ["Pipeline", "build_pipeline"]


def build_pipeline(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Pipeline:
    """Build a cell's model for images of `size` (height, width) in pixels and join its stages.

    Raises `UserError` for what cannot be built, a size that the model does not take, and a mode that `device`
    does not have.
    """
    if axes.vlm is None:
        return build_composed(axes, size, settings, device)
    # transformers' image processors take a second to import
    from vlmprof.execution.pipelines.hf_vlm import build_hf_vlm

    return build_hf_vlm(axes.vlm, axes, size, settings, device)
