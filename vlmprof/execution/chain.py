"""The chain of stages of one cell: the model built, its calls in the chosen mode, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmprof.errors import UserError
from vlmprof.execution.modes import MODES
from vlmprof.fields import resolution_size
from vlmprof.measure.timeline import Stage, Together
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.decoding import Context, decode, prefill_cached
from vlmprof.vlm.llm import masks_traced_prefill
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.preprocess import Preprocess
from vlmprof.vlm.workload import Workload

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}

NO_ATTENTION = ("No available kernel", "No viable backend for scaled_dot_product_attention")
"""How torch says that the backends it may choose from do not take the tensors, on a GPU and on a CPU."""

LEFT_EAGER = "before a decode stage prefill keeps a cache: both run eager, mode {mode} holds for the rest"

MASKED = "compiled or captured, prefill attends by a mask of positions × positions before transformers 5.18"


@dataclass(frozen=True)
class Chain:
    """What is measured in one cell."""

    stages: tuple[Stage | Together, ...]
    first_input: Any
    """The images, where preprocessing is no stage of the iteration."""
    vision: nn.Module
    weight_bytes: Mapping[str, int]
    backends: Mapping[str, str]
    visual_tokens: int | None = None
    """Where only the built model can tell."""
    warnings: tuple[str, ...] = ()
    """What is not as the cell's axes say."""


def build_chain(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Chain:
    """Build the model of a cell for images of `size` (height, width) and join its stages.

    Raises `UserError` for what cannot be built, and `RuntimeError` for a mode this device lacks.
    """
    if axes.vlm is not None:
        from vlmprof.execution.whole_chain import build_whole_chain

        return build_whole_chain(axes.vlm, axes, size, settings, device)
    names = settings.stages
    vlm = create_vlm(Workload.of(axes, settings, *size), device)
    preprocess = image_source(axes, size, settings, device)
    in_mode = MODES[axes.mode](device)
    decodes = "decode" in names
    calls: dict[str, Callable[[Any], Any]] = {
        "preprocess": lambda _: preprocess(),
        "vision": in_mode(vlm.encode_image),
        "connector": in_mode(vlm.project),
        # a cache grows with each step, so what keeps one cannot be replayed from a graph
        "prefill": (lambda x: prefill_cached(vlm, x)) if decodes else in_mode(vlm.prefill),
        "decode": lambda context: decode(vlm, context, settings.new_tokens),
    }
    said = []
    if axes.mode != "eager" and decodes:
        said.append(LEFT_EAGER.format(mode=axes.mode))
    elif axes.mode != "eager" and "prefill" in names and masks_traced_prefill():
        said.append(MASKED)
    return Chain(
        stages=tuple(Stage(name, calls[name]) for name in names),
        first_input=None if "preprocess" in names else preprocess(),
        vision=vlm.vision,
        weight_bytes=vlm.weight_bytes(),
        backends=vlm.backends,
        warnings=tuple(said),
    )


def image_source(axes: Axes, size: tuple[int, int], settings: Settings, device: torch.device) -> Preprocess:
    """What makes a cell's images, `size` being (height, width), its resolution or what that is padded to."""
    image = Path(settings.image) if settings.image else None
    dtype = torch.float32 if settings.autocast else getattr(torch, axes.dtype)
    return Preprocess(
        image, height=size[0], width=size[1], fit=settings.fit, device=device,
        dtype=dtype, batch_size=axes.batch_size, seed=settings.seed,
        inner=resolution_size(axes.resolution),
    )  # fmt: skip


@contextmanager
def attention_backend(axes: Axes, device: torch.device | str) -> Iterator[None]:
    """A context in which scaled-dot-product attention runs on one backend; `auto` leaves torch its choice.

    Raises `UserError` where that backend does not take the model's tensors; torch warns of the reasons.
    """
    name = axes.attention
    try:
        with nullcontext() if name == "auto" else sdpa_kernel(ATTENTION[name]):
            yield
    except RuntimeError as error:
        if name == "auto" or not any(words in str(error) for words in NO_ATTENTION):
            raise
        raise UserError(
            f"attention {name} does not take this model's tensors in {axes.dtype} on {device}; "
            "auto takes whichever does"
        ) from error


def state_bytes(output: Any) -> int | None:
    """Bytes of the key–value cache in what the last stage returned, if there is one."""
    return output.state_bytes() if isinstance(output, Context) else None
