"""The pipeline of a VLM composed of a backbone, a connector and an LLM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError
from vlmprof.execution.modes import Call, wrapper_of
from vlmprof.execution.pipelines.pipeline import Pipeline, image_source
from vlmprof.kernels.common.backends import why_not_triton
from vlmprof.measure.timeline import Stage
from vlmprof.settings import Axes, Mode, Settings
from vlmprof.vlm.attention import attention_run
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.frames import in_batches
from vlmprof.vlm.llm import masks_traced_prefill
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.precision import Capability, refusal
from vlmprof.vlm.quantization import quantization_run
from vlmprof.vlm.workload import Workload

LEFT_EAGER = "prefill and decode share a cache and run eager; mode {mode} applies to the other stages"

CHUNKS_LEFT_EAGER = "prefill in chunks has a cache and runs eager; mode {mode} applies to the other stages"

MASKED = "before transformers 5.18, compiled or captured prefill uses a positions × positions attention mask"


def build_composed(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Pipeline:
    """Build the backbone, connector and LLM of a cell. Raises the same errors as `build_pipeline`."""
    names = settings.stages
    if reason := refusal(axes, settings, nvidia_capability(device)):
        raise UserError(reason)
    workload = Workload.of(axes, settings, *size)
    vlm = create_vlm(workload, device)
    preprocess = image_source(axes, size, settings, device)
    in_mode = wrapper_of(axes.mode, device)
    decodes, in_chunks = "decode" in names, workload.prefill_chunk is not None
    encode = _in_frame_batches(vlm.encode_image, workload.encoded_at_once, axes.mode, in_mode)
    llm_in_mode = wrapper_of(axes.mode, device, quantized=axes.llm_precision != "as-dtype")
    # a cache grows with each call, so stages that use it cannot be replayed from a graph
    prefill: Callable[[Any], Any] = vlm.prefill if in_chunks else llm_in_mode(vlm.prefill)
    if decodes:
        prefill = partial(prefill_cached, vlm)
    calls: dict[str, Callable[[Any], Any]] = {
        "preprocess": lambda _: preprocess(),
        "vision": _checked_once(encode, vlm.vision, workload.encoder_batch, workload.encoder_size),
        "connector": in_mode(vlm.project),
        "prefill": prefill,
        "decode": lambda context: decode(vlm, context, settings.new_tokens),
    }
    backends, warnings = attention_run({"vision": (axes.backbone, vlm.vision), "llm": (axes.llm, vlm.llm)})
    quantized_by, about_quantization = quantization_run(
        vlm.llm, axes.llm_precision, "eager" if decodes or in_chunks else axes.mode
    )
    warnings += about_quantization
    if axes.kernel_backend == "auto" and device.type == "cuda" and "torch" in vlm.backends.values():
        warnings.append(f"without fused kernels, in plain torch: {why_not_triton(device)}")
    if axes.mode != "eager" and decodes:
        warnings.append(LEFT_EAGER.format(mode=axes.mode))
    elif axes.mode != "eager" and in_chunks:
        warnings.append(CHUNKS_LEFT_EAGER.format(mode=axes.mode))
    elif axes.mode != "eager" and "prefill" in names and masks_traced_prefill():
        warnings.append(MASKED)
    return Pipeline(
        stages=tuple(Stage(name, calls[name]) for name in names),
        first_input=None if "preprocess" in names else preprocess(),
        vision=vlm.vision,
        weight_bytes=vlm.weight_bytes(),
        encoder_size=workload.encoder_size if workload.tiling else None,
        backends={**vlm.backends, **backends, **quantized_by},
        warnings=tuple(warnings),
    )


def _in_frame_batches(
    encode: Call, at_once: int, mode: Mode, in_mode: Callable[[Call], Call]
) -> Callable[[Any], Any]:
    """Wrap `encode` so that it encodes `at_once` pictures at a time in this mode.

    A graph captures the whole loop over batches; the compiler, which would unroll it, gets one batch.
    """
    if mode == "graphs":
        return in_mode(lambda images: in_batches(encode, images, at_once))
    one_batch = in_mode(encode)
    return lambda images: in_batches(one_batch, images, at_once)


def nvidia_capability(device: torch.device) -> Capability | None:
    """Return the compute capability of a GPU of NVIDIA's; None for other devices."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" and torch.version.cuda else None


def _checked_once(
    encode: Callable[[Any], Any], vision: torch.nn.Module, batch_size: int, size: tuple[int, int]
) -> Callable[[Any], Any]:
    """Wrap `encode` to compare the shape of its first output with the facts of the backbone."""
    if not isinstance(vision, Backbone):
        return encode
    unchecked = [vision.facts]

    def encode_and_check(images: Any) -> Any:
        tokens = encode(images)
        if unchecked:
            unchecked.pop().check_output(tuple(tokens.shape), batch_size, *size)
        return tokens

    return encode_and_check
