"""A VLM of transformers on torch's `meta` device: its tokens and stages for a photo, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from vlmprof.activity import say
from vlmprof.backbones.grouped_products import GroupedProducts
from vlmprof.backbones.known_values import KnownValues
from vlmprof.settings import Axes, Dtype, Logits, ProcessorBackend, Settings
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm, refused
from vlmprof.vlm.hf_vlm.own import blank_photo, processed
from vlmprof.vlm.hf_vlm.parts import Parts
from vlmprof.vlm.hf_vlm.photo import PhotoFacts


@dataclass(frozen=True)
class DryRun:
    """A model without data and its inputs for images of one size."""

    vlm: HfVLM
    inputs: dict[str, Any]
    """Floating-point tensors have no values; those of ids, masks and grids are known on the host."""
    facts: PhotoFacts
    parts: Parts
    values: KnownValues
    batch_size: int

    @property
    def visual_tokens(self) -> int:
        """The number of tokens that the language model gets of an image."""
        return self.facts.visual_tokens or self.parts.connector_tokens // self.batch_size

    @property
    def encoder_tokens(self) -> int:
        """The number of tokens that the encoder makes of an image."""
        return self.parts.encoder_tokens // self.batch_size

    def key(self) -> tuple[Any, ...]:
        """Return what the forward pass depends on: photos of two sizes may have the same inputs."""
        leaves, layout = tree_flatten(self.inputs)
        return str(layout), *(_seen(leaf, self.values) for leaf in leaves)


def dry_run(name: str, size: tuple[int, int], axes: Axes, settings: Settings) -> DryRun:
    """Build the VLM `name` on `meta` and run it on images of `size` (height, width) in pixels.

    Raises `UserError` as a sweep would, and for a model whose control flow depends on its weights.
    """
    backend = settings.processor_backend if settings.processor == "own" else None
    return _dry_run(name, size, axes.dtype, axes.batch_size, settings.prompt_tokens, settings.logits, backend)


@lru_cache(maxsize=256)
def _dry_run(
    name: str,
    size: tuple[int, int],
    dtype: Dtype,
    batch_size: int,
    prompt_tokens: int,
    logits: Logits,
    backend: ProcessorBackend | None,
) -> DryRun:
    """Do the same; without a `backend`, images are in one piece."""
    say(f"building {name} on the meta device for {size[1]}x{size[0]}")
    vlm, values = _model(name, dtype, prompt_tokens, logits, backend is None)
    facts, inputs = PhotoFacts(None, None, None, size), None
    if backend is not None:
        photos = [blank_photo(size)] * batch_size
        own, made = processed(name, photos, dtype, prompt_tokens, backend)
        facts = own.facts
        inputs = tree_map_only(Tensor, lambda tensor: _without_data(tensor, values), dict(made))
    try:
        with torch.inference_mode(), GroupedProducts(), values:
            if inputs is None:
                images = torch.empty(batch_size, 3, *size, device="meta", dtype=getattr(torch, dtype))
                inputs = vlm.inputs(images)
            parts = vlm.tell_parts(inputs)
    except Exception as problem:  # models raise different errors for unsupported sizes
        raise refused(vlm, name, size, problem) from problem
    return DryRun(vlm, inputs, facts, parts, values, batch_size)


@lru_cache(maxsize=2)
def _model(
    name: str, dtype: str, prompt_tokens: int, logits: Logits, one_piece: bool
) -> tuple[HfVLM, KnownValues]:
    values = KnownValues()
    with values:
        vlm = create_hf_vlm(
            name, device="meta", dtype=getattr(torch, dtype), prompt_tokens=prompt_tokens, logits=logits,
            one_piece=one_piece,
        )  # fmt: skip
    return vlm, values


def _without_data(tensor: Tensor, values: KnownValues) -> Tensor:
    return tensor.to("meta") if tensor.is_floating_point() else values.put_on_meta(tensor)


def _seen(leaf: Any, values: KnownValues) -> Any:
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    known = values.of(leaf)
    return tuple(leaf.shape), leaf.dtype, None if known is None else known.numpy().tobytes()
