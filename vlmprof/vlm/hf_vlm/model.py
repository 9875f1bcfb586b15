"""A VLM as people download it, `hf:PATH-or-name`: any image-text-to-text model of transformers.

Its forward pass stays one call; hooks on its vision tower, projector and language model mark the stages:

    forward ─┬─ vision tower ─┬─ glue ─┬─ projector ─┬─ glue ─┬─ language model ─ output head ─┬─▶ logits
             └──── vision ────┘        └─ connector ─┘        └─────────── prefill ────────────┘

The glue between them (merging embeddings, masks) belongs to no stage, but to the end-to-end latency.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.backbones.transformers_plain import interpolate_once
from vlmprof.backbones.weights import PRETRAINED
from vlmprof.errors import UserError
from vlmprof.settings import Logits
from vlmprof.vlm.hf_vlm.catalog import config_path, source
from vlmprof.vlm.hf_vlm.inputs import image_inputs

VISION = ("vision_tower", "vision_model", "visual", "image_tower", "vision_encoder")
CONNECTOR = ("multi_modal_projector", "connector", "merger", "mm_projector", "aligner", "embed_vision")
LANGUAGE = ("language_model", "text_model", "llm")
"""What transformers calls the three parts, in the order in which a name is taken."""

TOKEN_TYPES = {
    "qwen2_vl": "mm_token_type_ids",
    "qwen2_5_vl": "mm_token_type_ids",
    "qwen3_vl": "mm_token_type_ids",
    "gemma3": "token_type_ids",
    "paligemma": "token_type_ids",
}
"""By architecture, the argument that says which positions hold an image."""

Mark = Callable[[str], None]


class HfVLM:
    """One model, its inputs for images of one size, and its parts by stage."""

    def __init__(self, model: PreTrainedModel, prompt: Tensor, logits: Logits) -> None:
        self.model = model
        self.prompt = prompt
        self.logits = logits
        self.parts = {
            "vision": _part(model, VISION),
            "connector": _part(model, CONNECTOR),
            "prefill": _part(model, LANGUAGE),
        }
        self._visual_tokens: dict[tuple[int, ...], int] = {}
        _interpolate_positions(self.parts["vision"])

    def inputs(self, images: Tensor) -> dict[str, Any]:
        """What the model's own processor makes of images (batch, 3, height, width) that have their size
        already: pixels in the model's layout, and ids with one place for each visual token."""
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
            **self._token_types(ids),
        }

    def forward(self, inputs: dict[str, Any]) -> Tensor:
        """What `inputs` made to logits (batch, positions, vocabulary), in one forward pass: every position
        for `all`, the last one for `last`. No key–value cache."""
        output = self.model(**inputs, use_cache=False, logits_to_keep=1 if self.logits == "last" else 0)
        logits: Tensor = output.logits
        return logits

    def visual_tokens(self, images: Tensor) -> int:
        """Tokens that one of these images becomes, from a pass of the vision part for each new shape."""
        shape = tuple(images.shape[1:])
        if shape not in self._visual_tokens:
            features: Any = self.model.model.get_image_features(**image_inputs(self.model.config, images[:1]))
            features = getattr(features, "pooler_output", features)
            tensors = features if isinstance(features, list | tuple) else [features]
            self._visual_tokens[shape] = sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
        return self._visual_tokens[shape]

    def mark_stages(self, begin: Mark, end: Mark) -> list[RemovableHandle]:
        """Call `begin(stage)` and `end(stage)` around each part of every forward pass from now on.

        A projector inside the vision tower ends the stage `vision` where it begins; `prefill` ends with
        the whole model, output head included. Call `visual_tokens` first: it runs the vision part alone.
        Remove the handles to stop.
        """
        vision, connector, language = self.parts.values()
        inside = any(module is connector for module in vision.modules())
        handles = [vision.register_forward_pre_hook(lambda *_: begin("vision"))]
        if inside:
            handles.append(connector.register_forward_pre_hook(lambda *_: end("vision")))
        else:
            handles.append(vision.register_forward_hook(lambda *_: end("vision")))
        handles += [
            connector.register_forward_pre_hook(lambda *_: begin("connector")),
            connector.register_forward_hook(lambda *_: end("connector")),
            language.register_forward_pre_hook(lambda *_: begin("prefill")),
            self.model.register_forward_hook(lambda *_: end("prefill")),
        ]
        return handles

    def weight_bytes(self) -> dict[str, int]:
        """Bytes of parameters and buffers of each stage; what is in no other part counts as `prefill`."""
        total = _bytes(self.model, set())
        connector = _bytes(self.parts["connector"], set())
        vision = _bytes(self.parts["vision"], {id(t) for t in _tensors(self.parts["connector"])})
        return {"vision": vision, "connector": connector, "prefill": total - vision - connector}

    def _token_types(self, ids: Tensor) -> dict[str, Tensor]:
        """Which positions hold an image, for architectures that ask."""
        argument = TOKEN_TYPES.get(getattr(self.model.config, "model_type", ""))
        if argument is None:
            return {}
        return {argument: (ids == self.model.config.image_token_id).to(torch.int32)}


def create_hf_vlm(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    prompt_tokens: int = 1,
    logits: Logits = "all",
    seed: int = 0,
    weights: str | None = None,
) -> HfVLM:
    """A frozen VLM from `hf:PATH-or-name`, with random weights made on `device` in `dtype`, or with
    its own for `weights="pretrained"`.

    A path is a `config.json` or its folder, and stays offline; a hub name may fetch what it needs.
    Raises `UserError` in one line when there is none, or transformers builds no such VLM from it.
    """
    path = config_path(name)
    place = source(name) if path is None else str(path.parent)
    try:
        config = AutoConfig.from_pretrained(place if path is None else str(path))
        if weights == PRETRAINED:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                place, config=config, dtype=dtype, attn_implementation="sdpa"
            )
            model.requires_grad_(False).to(device).eval()
        else:
            with uninitialised(device, dtype):
                model = AutoModelForImageTextToText.from_config(
                    config, dtype=dtype, attn_implementation="sdpa"
                )
            fill(model, seed)
    except (OSError, ValueError, KeyError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(f"vlm {name!r}: transformers cannot build it ({reason})") from problem
    if not isinstance(getattr(config, "image_token_id", None), int):
        raise UserError(f"vlm {name!r}: its configuration names no image_token_id")
    generator = torch.Generator(device).manual_seed(seed)
    highest = min(config.get_text_config().vocab_size, config.image_token_id)
    prompt = torch.randint(highest, (1, prompt_tokens), generator=generator, device=device)
    return HfVLM(model, prompt, logits)


def _interpolate_positions(vision: nn.Module) -> None:
    """Let a tower that was trained at one size take others: its positions are interpolated, once a size."""
    for module in vision.modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue
        interpolate_once(module)
        if "interpolate_pos_encoding" in inspect.signature(type(module).forward).parameters:
            module.register_forward_pre_hook(
                lambda _, args, kwargs: (args, {**kwargs, "interpolate_pos_encoding": True}),
                with_kwargs=True,
            )


def _part(model: PreTrainedModel, names: tuple[str, ...]) -> nn.Module:
    """The outermost module of one of these names."""
    for name in names:
        found = [path for path, _ in model.named_modules() if path.rsplit(".", 1)[-1] == name]
        if found:
            return model.get_submodule(min(found, key=lambda path: path.count(".")))
    raise UserError(f"vlm: {type(model).__name__} has no part called {' or '.join(names)}")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(module: nn.Module, left_out: set[int]) -> int:
    return sum(t.numel() * t.element_size() for t in _tensors(module) if id(t) not in left_out)
