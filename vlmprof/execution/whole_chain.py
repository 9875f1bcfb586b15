"""The chain of stages of a whole VLM: its forward pass is one call, and its hooks mark the stages in it."""

from __future__ import annotations

from typing import Any

import torch

from vlmprof.errors import UserError
from vlmprof.execution.chain import Chain, image_source
from vlmprof.execution.oom import is_out_of_memory
from vlmprof.measure.timeline import Mark, Stage, Together
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm


def build_whole_chain(
    name: str, axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device
) -> Chain:
    """Build the whole VLM called `name`, and see whether it takes images of `size` (height, width).

    What its processor does after resizing (cutting patches, placing tokens) is part of `preprocess`.
    Raises `UserError` for what cannot be built, and a size that the model does not take.
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

    marked = Together(("vision", "connector", "prefill"), _Marked(vlm).run)
    first = "preprocess" in settings.stages
    return Chain(
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
    except Exception as problem:  # what a model raises for a size that it does not take is its own affair
        if is_out_of_memory(problem):
            raise
        height, width = images.shape[2:]
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        trained = getattr(vlm.model.config.vision_config, "image_size", None)
        sides = "x".join(map(str, trained)) if isinstance(trained, list | tuple) else trained
        made_for = f"; its configuration is for {sides}" if trained else ""
        raise UserError(f"vlm {name!r} cannot take {width}x{height}{made_for} ({reason})") from problem


class _Marked:
    """A model whose hooks are registered once, and that tells whoever calls it about its stages."""

    def __init__(self, vlm: HfVLM) -> None:
        self._vlm = vlm
        self._begin: Mark = _nobody
        self._end: Mark = _nobody
        vlm.mark_stages(lambda stage: self._begin(stage), lambda stage: self._end(stage))

    def run(self, inputs: dict[str, Any], begin: Mark, end: Mark) -> torch.Tensor:
        self._begin, self._end = begin, end
        return self._vlm.forward(inputs)


def _nobody(stage: str) -> None:
    pass
