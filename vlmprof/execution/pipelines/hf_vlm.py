"""The pipeline of a VLM from transformers: its forward pass is one call, with hooks around the stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vlmprof.errors import UserError, first_line
from vlmprof.execution.pipelines.pipeline import Pipeline, image_source
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.measure.timeline import Mark, Stage, StageGroup
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm
from vlmprof.vlm.hf_vlm.own import own_photo


def build_hf_vlm(
    name: str, axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device
) -> Pipeline:
    """Build the VLM `name`, and check that it accepts images of `size` (height, width) in pixels.

    `preprocess` is its own processor at work on a decoded photo, and the copy to the device; in one piece,
    reading and resizing an image, and what a processor does after that. Raises `UserError` for what cannot be
    built, and for a size that the model does not take.
    """
    vlm = create_hf_vlm(
        name, device=device, dtype=getattr(torch, axes.dtype),
        prompt_tokens=settings.prompt_tokens, logits=settings.logits, seed=settings.seed,
        weights=settings.weights, one_piece=settings.processor == "one-piece",
    )  # fmt: skip
    if settings.processor == "own":
        return _with_own_processor(vlm, name, axes, size, settings, device)
    images = image_source(axes, size, settings, device)
    first_images = images()
    visual_tokens = _taken(lambda: vlm.visual_tokens(first_images), vlm, name, size)
    inputs = vlm.inputs(first_images)
    parts = _taken(lambda: vlm.tell_parts(inputs), vlm, name, size)
    return _pipeline(
        vlm, settings, lambda: vlm.inputs(images()), visual_tokens=visual_tokens,
        encoder_tokens=parts.encoder_tokens // axes.batch_size, encoder_size=size,
    )  # fmt: skip


def _with_own_processor(
    vlm: HfVLM, name: str, axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device
) -> Pipeline:
    photo = own_photo(
        name, size, axes.dtype, prompt_tokens=settings.prompt_tokens, backend=settings.processor_backend,
        batch_size=axes.batch_size, image=settings.image, fit=settings.fit, seed=settings.seed,
    )  # fmt: skip
    inputs = photo.inputs(device)
    parts = _taken(lambda: vlm.tell_parts(inputs), vlm, name, size)
    facts = photo.facts
    return _pipeline(
        vlm, settings, lambda: photo.inputs(device),
        visual_tokens=facts.visual_tokens or parts.connector_tokens // axes.batch_size,
        encoder_tokens=parts.encoder_tokens // axes.batch_size,
        tiles=facts.tiles, encoder_size=facts.encoder_size,
        backends={"processor": photo.backend}, warnings=(*photo.warnings, *parts.warnings),
    )  # fmt: skip


def _pipeline(
    vlm: HfVLM, settings: Settings, make_inputs: Callable[[], dict[str, Any]], **found: Any
) -> Pipeline:
    marked = StageGroup(vlm.parts.stages, _Marked(vlm).run)
    first = "preprocess" in settings.stages
    return Pipeline(
        stages=(Stage("preprocess", lambda _: make_inputs()), marked) if first else (marked,),
        first_input=None if first else make_inputs(),
        vision=vlm.parts.vision,
        weight_bytes=vlm.weight_bytes(),
        **{"backends": {}, **found},
    )


def _taken(work: Callable[[], Any], vlm: HfVLM, name: str, size: tuple[int, int]) -> Any:
    """What `work` returns. Raises `UserError` in one line when the model does not take this size."""
    try:
        with torch.inference_mode():
            return work()
    except Exception as problem:  # models raise different errors for unsupported sizes
        if is_out_of_memory(problem):
            raise
        height, width = size
        reason = first_line(str(problem)) or type(problem).__name__
        trained = getattr(getattr(vlm.model.config, "vision_config", None), "image_size", None)
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
