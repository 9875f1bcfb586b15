"""The pipeline of a VLM composed of a backbone, a connector and an LLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vlmprof.execution.modes import MODES
from vlmprof.execution.pipelines.pipeline import Pipeline, image_source
from vlmprof.measure.timeline import Stage
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.llm import masks_traced_prefill
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.workload import Workload

LEFT_EAGER = "prefill and decode share a cache and run eager; mode {mode} applies to the other stages"

MASKED = "before transformers 5.18, compiled or captured prefill uses a positions × positions attention mask"


def build_composed(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Pipeline:
    """Build the backbone, connector and LLM of a cell. Raises the same errors as `build_pipeline`."""
    names = settings.stages
    vlm = create_vlm(Workload.of(axes, settings, *size), device)
    preprocess = image_source(axes, size, settings, device)
    in_mode = MODES[axes.mode](device)
    decodes = "decode" in names
    calls: dict[str, Callable[[Any], Any]] = {
        "preprocess": lambda _: preprocess(),
        "vision": in_mode(vlm.encode_image),
        "connector": in_mode(vlm.project),
        # the cache grows with each step, so stages that use it cannot be replayed from a graph
        "prefill": (lambda x: prefill_cached(vlm, x)) if decodes else in_mode(vlm.prefill),
        "decode": lambda context: decode(vlm, context, settings.new_tokens),
    }
    warnings = []
    if axes.mode != "eager" and decodes:
        warnings.append(LEFT_EAGER.format(mode=axes.mode))
    elif axes.mode != "eager" and "prefill" in names and masks_traced_prefill():
        warnings.append(MASKED)
    return Pipeline(
        stages=tuple(Stage(name, calls[name]) for name in names),
        first_input=None if "preprocess" in names else preprocess(),
        vision=vlm.vision,
        weight_bytes=vlm.weight_bytes(),
        backends=vlm.backends,
        warnings=tuple(warnings),
    )
