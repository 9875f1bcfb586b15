"""The pipeline of a VLM from transformers: its forward pass is one call, with hooks around the stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vlmprof.execution.pipelines.pipeline import Pipeline, image_source
from vlmprof.measure.oom import is_out_of_memory
from vlmprof.measure.timeline import Mark, Stage, StageGroup
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.attention import attention_run, check_attention
from vlmprof.vlm.decoding import Context, decode
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm, refused
from vlmprof.vlm.hf_vlm.own import own_photo
from vlmprof.vlm.hf_vlm.photo import PhotoFacts


def build_hf_vlm(
    name: str, axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device
) -> Pipeline:
    """Build the VLM `name`, and check that it accepts images of `size` (height, width) in pixels.

    `preprocess` is its own processor on a decoded photo, and the copy to the device; in one piece, reading,
    resizing and packing an image. Raises `UserError` for a VLM that cannot be built, and for a size that it
    does not accept.
    """
    vlm = create_hf_vlm(
        name, device=device, dtype=getattr(torch, axes.dtype),
        prompt_tokens=settings.prompt_tokens, logits=settings.logits, seed=settings.seed,
        weights=settings.weights, one_piece=settings.processor == "one-piece",
    )  # fmt: skip
    check_attention(name, vlm.model, axes.attention)
    make_inputs: Callable[[], dict[str, Any]]
    if settings.processor == "own":
        photo = own_photo(
            name, size, axes.dtype, prompt_tokens=settings.prompt_tokens, backend=settings.processor_backend,
            batch_size=axes.batch_size, image=settings.image, fit=settings.fit, seed=settings.seed,
        )  # fmt: skip
        facts, backends, warnings = photo.facts, {"processor": photo.backend}, photo.warnings
        make_inputs = partial(photo.inputs, device)
    else:
        facts, backends, warnings = PhotoFacts(None, None, None, size), {}, ()
        images = image_source(axes, size, settings, device)

        make_inputs = lambda: vlm.inputs(images())  # noqa: E731
    try:
        with torch.inference_mode():
            parts = vlm.tell_parts(make_inputs())
    except Exception as problem:  # models raise different errors for unsupported sizes
        if is_out_of_memory(problem):
            raise
        raise refused(vlm, name, size, problem) from problem
    attention, not_fused = attention_run(
        {"vision": (axes.backbone, parts.vision), "llm": (axes.llm, parts.language)}
    )
    first, decodes = "preprocess" in settings.stages, "decode" in settings.stages
    stages: list[Stage | StageGroup] = [Stage("preprocess", lambda _: make_inputs())] if first else []
    stages.append(StageGroup(parts.stages, _Marked(vlm, decodes).run))
    if decodes:
        stages.append(Stage("decode", lambda context: decode(vlm, context, settings.new_tokens)))
    return Pipeline(
        stages=tuple(stages),
        first_input=None if first else make_inputs(),
        vision=parts.vision,
        weight_bytes=vlm.weight_bytes(),
        backends={**backends, **attention},
        visual_tokens=facts.visual_tokens or parts.connector_tokens // axes.batch_size,
        encoder_tokens=parts.encoder_tokens // axes.batch_size,
        tiles=facts.tiles,
        encoder_size=facts.encoder_size,
        warnings=(*warnings, *parts.warnings, *not_fused),
    )


class _Marked:
    """A model whose hooks are registered once and call the marks of the current caller."""

    def __init__(self, vlm: HfVLM, decodes: bool) -> None:
        self._pass = vlm.prefill_cached if decodes else vlm.forward
        self._begin: Mark = _ignored
        self._end: Mark = _ignored
        vlm.mark_stages(lambda stage: self._begin(stage), lambda stage: self._end(stage))

    def run(self, inputs: dict[str, Any], begin: Mark, end: Mark) -> torch.Tensor | Context:
        self._begin, self._end = begin, end
        return self._pass(inputs)


def _ignored(stage: str) -> None:
    pass
