"""The pipeline of a VLM from transformers: its forward pass is one call, with hooks around the stages."""

from __future__ import annotations

from typing import Any

import torch

from vlmprof.errors import UserError, first_line
from vlmprof.execution.pipelines.pipeline import Pipeline, image_source
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.measure.timeline import Mark, Stage, StageGroup
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm


def build_hf_vlm(
    name: str, axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device
) -> Pipeline:
    """Build the VLM `name`, and check that it accepts images of `size` (height, width) in pixels.

    The work of its processor after resizing (cutting patches, placing tokens) is part of `preprocess`.
    Raises `UserError` if the model cannot be built or does not accept this size.
    """
    vlm = create_hf_vlm(
        name, device=device, dtype=getattr(torch, axes.dtype),
        prompt_tokens=settings.prompt_tokens, logits=settings.logits, seed=settings.seed,
        weights=settings.weights,
    )  # fmt: skip
    images = image_source(axes, size, settings, device)
    visual_tokens = _visual_tokens(vlm, name, images())

    def preprocess(_: Any) -> dict[str, Any]:
        return vlm.inputs(images())

    marked = StageGroup(("vision", "connector", "prefill"), _Marked(vlm).run)
    first = "preprocess" in settings.stages
    return Pipeline(
        stages=(Stage("preprocess", preprocess), marked) if first else (marked,),
        first_input=None if first else preprocess(None),
        vision=vlm.parts["vision"],
        weight_bytes=vlm.weight_bytes(),
        backends={},
        visual_tokens=visual_tokens,
    )


def _visual_tokens(vlm: HfVLM, name: str, images: torch.Tensor) -> int:
    try:
        with torch.inference_mode():
            return vlm.visual_tokens(images)
    except Exception as problem:  # models raise different errors for unsupported sizes
        if is_out_of_memory(problem):
            raise
        height, width = images.shape[2:]
        reason = first_line(str(problem)) or type(problem).__name__
        trained = getattr(vlm.model.config.vision_config, "image_size", None)
        sides = "x".join(map(str, trained)) if isinstance(trained, list | tuple) else trained
        made_for = f"; its configuration is for {sides}" if trained else ""
        raise UserError(f"vlm {name!r} does not accept {width}x{height}{made_for} ({reason})") from problem


class _Marked:
    """A model whose hooks are registered once and call the marks of the current caller."""

    def __init__(self, vlm: HfVLM) -> None:
        self._vlm = vlm
        self._begin: Mark = _ignored
        self._end: Mark = _ignored
        vlm.mark_stages(lambda stage: self._begin(stage), lambda stage: self._end(stage))

    def run(self, inputs: dict[str, Any], begin: Mark, end: Mark) -> torch.Tensor:
        self._begin, self._end = begin, end
        return self._vlm.forward(inputs)


def _ignored(stage: str) -> None:
    pass
