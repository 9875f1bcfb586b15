"""A VLM as it is distributed, `hf:PATH-or-name`: any image-text-to-text model of transformers.

Its forward pass remains one call, in which hooks mark the stages (`parts.py`). Its inputs are what its own
processor makes of a photo (`photo.py`), or images that already have their size, in one piece (`inputs.py`).
"""

from __future__ import annotations

import copy
import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.backbones.transformers_plain import interpolate_once
from vlmprof.backbones.weights import PRETRAINED
from vlmprof.errors import UserError, message_of
from vlmprof.settings import Logits
from vlmprof.vlm.decoding import Context
from vlmprof.vlm.hf_vlm.architectures import architecture, first_side, vision_config
from vlmprof.vlm.hf_vlm.catalog import config_path, source
from vlmprof.vlm.hf_vlm.decoding_steps import first_context, steps
from vlmprof.vlm.hf_vlm.inputs import image_inputs, token_types
from vlmprof.vlm.hf_vlm.parts import Mark, Parts, find_parts, mark_stages

BLANK_SIDE = 112
"""The side of the image that is used to find a model's parts if its configuration names no size."""


class HfVLM:
    """One model, its inputs for images of one size, and its parts by stage."""

    def __init__(self, model: PreTrainedModel, prompt: Tensor, logits: Logits) -> None:
        self.model = model
        self.prompt = prompt
        self.logits = logits
        self._visual_tokens: dict[tuple[int, ...], int] = {}
        architecture(model.config.model_type).mend(model)
        self._asked: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
            self._asked["logits_to_keep"] = 1 if logits == "last" else 0

    def inputs(self, images: Tensor) -> dict[str, Any]:
        """Return the inputs for images (batch, 3, height, width) in one piece: pixels in the model's layout,
        and ids with one position for each visual token."""
        visual = torch.full(
            (images.shape[0], self.visual_tokens(images)),
            self.model.config.image_token_id,
            device=images.device,
        )
        ids = torch.cat((visual, self.prompt.expand(images.shape[0], -1)), dim=1)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            **image_inputs(self.model.config, images),
            **token_types(self.model.config, ids),
        }

    def forward(self, inputs: dict[str, Any]) -> Tensor:
        """Return the logits (batch, positions, vocabulary) of one forward pass without key–value cache: of
        every position, or of the last if `logits` is `last`."""
        output = self.model(**inputs, **self._asked)
        logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
        return logits if "logits_to_keep" in self._asked or self.logits == "all" else logits[:, -1:]

    def prefill_cached(self, inputs: dict[str, Any]) -> Context:
        """Run the same pass and keep its key–value cache, from which decoding continues."""
        return first_context(self.model, {**inputs, **self._asked, "use_cache": True})

    @property
    def language(self) -> nn.Module:
        """What takes further tokens: the whole model, which then encodes no image, or its language model."""
        return self.model.get_submodule(steps(self.model.config).takes_tokens)

    def visual_tokens(self, images: Tensor) -> int:
        """Return the number of visual tokens of one of these images in one piece, from a pass of the vision
        part for each new shape."""
        shape = tuple(images.shape[1:])
        if shape not in self._visual_tokens:
            features: Any = self.model.model.get_image_features(**image_inputs(self.model.config, images[:1]))
            features = getattr(features, "pooler_output", features)
            tensors = features if isinstance(features, list | tuple) else [features]
            self._visual_tokens[shape] = sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
        return self._visual_tokens[shape]

    def tell_parts(self, inputs: dict[str, Any]) -> Parts:
        """Find the model's parts by a pass of `inputs` up to the language model; keep them as `parts`."""
        self.parts = find_parts(self.model, inputs)
        return self.parts

    @cached_property
    def parts(self) -> Parts:
        """The model's parts; if `tell_parts` was not called before, from a blank image in one piece."""
        side = first_side(getattr(vision_config(self.model.config), "image_size", None) or BLANK_SIDE)
        images = torch.zeros(1, 3, side, side, device=self.model.device, dtype=self.model.dtype)
        with torch.inference_mode():
            return find_parts(self.model, self.inputs(images))

    def mark_stages(self, begin: Mark, end: Mark, parts: Parts | None = None) -> list[RemovableHandle]:
        """Call `begin(stage)` and `end(stage)` around each part in every forward pass from now on. `parts`
        are those found last by default.

        If the projector is inside the encoder, the stage `vision` ends where it begins. `prefill` includes
        the output head. Remove the handles to stop.
        """
        return mark_stages(self.model, parts or self.parts, begin, end)

    def stage_tensors(self, parts: Parts | None = None) -> dict[str, list[Tensor]]:
        """Return the parameters and buffers of each stage. The last one has those of no other part."""
        parts = parts or self.parts
        connectors = {id(t): t for module in parts.connector for t in _tensors(module)}
        encoder = {id(t): t for t in _tensors(parts.vision) if id(t) not in connectors}
        everything = {id(t): t for t in _tensors(self.model)}
        rest = {key: t for key, t in everything.items() if key not in connectors and key not in encoder}
        found = {"vision": encoder, "connector": connectors}
        last = parts.stages[-1]
        found[last] = {**found.get(last, {}), **rest}
        return {stage: list(tensors.values()) for stage, tensors in found.items() if tensors}

    def weight_bytes(self) -> dict[str, int]:
        """Return the bytes of the parameters and buffers of each stage."""
        return {stage: sum(t.nbytes for t in tensors) for stage, tensors in self.stage_tensors().items()}


def read_config(name: str) -> tuple[Any, Path | None]:
    """Return transformers' configuration of the VLM `name`, and its folder unless it is a hub model.

    Raises `UserError` if there is none.
    """
    path = config_path(name)
    try:
        return AutoConfig.from_pretrained(source(name) if path is None else str(path)), path and path.parent
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _not_built(name, problem) from problem


def create_hf_vlm(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    prompt_tokens: int = 1,
    logits: Logits = "all",
    seed: int = 0,
    weights: str | None = None,
    one_piece: bool = True,
) -> HfVLM:
    """Build a frozen VLM from `hf:PATH-or-name`, with random weights on `device` in `dtype`, or with its own
    for `weights="pretrained"`.

    A path is a `config.json` or its folder, and is read offline; a hub model is downloaded if necessary. With
    `one_piece`, position embeddings trained at one size are interpolated to that of the images. Raises
    `UserError` if there is no configuration, or transformers cannot build a VLM from it.
    """
    config, folder = read_config(name)
    try:
        if weights == PRETRAINED:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                source(name) if folder is None else str(folder), config=copy.deepcopy(config), dtype=dtype
            )
            model.requires_grad_(False).to(device).eval()
        else:
            with uninitialised(device, dtype):
                model = AutoModelForImageTextToText.from_config(copy.deepcopy(config), dtype=dtype)
            fill(model, seed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as problem:
        raise _not_built(name, problem) from problem
    if not one_piece:
        return HfVLM(model, torch.empty(1, 0, device=device, dtype=torch.long), logits)
    if not isinstance(getattr(config, "image_token_id", None), int):
        raise UserError(f"vlm {name!r}: its configuration names no image_token_id")
    _interpolate_positions(model)
    highest = min(config.get_text_config().vocab_size, config.image_token_id)
    prompt = torch.randint(highest, (1, prompt_tokens), generator=torch.Generator().manual_seed(seed))
    return HfVLM(model, prompt.to(device), logits)


def refused(vlm: HfVLM, name: str, size: tuple[int, int], problem: Exception) -> UserError:
    """Return the error for a `size` (height, width) that a model does not accept."""
    height, width = size
    trained = getattr(vision_config(vlm.model.config), "image_size", None)
    sides = "x".join(map(str, trained)) if isinstance(trained, list | tuple) else trained
    made_for = f"; its configuration is for {sides}" if trained else ""
    return UserError(f"vlm {name!r} does not accept {width}x{height}{made_for} ({message_of(problem)})")


def _not_built(name: str, problem: Exception) -> UserError:
    return UserError(f"vlm {name!r}: transformers cannot build it ({message_of(problem)})")


def _interpolate_positions(model: nn.Module) -> None:
    """Let a tower that was trained at one size take others, by interpolating its positions once for each."""
    for module in model.modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue
        interpolate_once(module)
        if "interpolate_pos_encoding" in inspect.signature(type(module).forward).parameters:
            module.register_forward_pre_hook(
                lambda _, args, kwargs: (args, {**kwargs, "interpolate_pos_encoding": True}),
                with_kwargs=True,
            )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
