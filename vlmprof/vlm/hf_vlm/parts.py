"""The parts of a VLM of transformers, found by its calls, and marks around them in every forward pass.

    forward ─┬─ encoder ─┬─ glue ─┬─ projector ─┬─ glue ─┬─ language model ─ output head ─┬─▶ logits
             └─ vision ──┘        └─ connector ─┘        └─────────── prefill ────────────┘

The glue between them (packing tiles, merging embeddings, masks) counts only towards the end-to-end latency.

`find_parts` records the calls of one pass up to the language model. The encoder is the module with one of
transformers' names for it, or else the first that runs. The connector is what runs between it and the
language model, or else the end of the encoder from its last change of shape on, if that is to the language
model's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from vlmprof.vlm.hf_vlm.architectures import architecture

NOT_APART = "{stage} cannot be told apart in {model_type}: its time and weights are in {other}"

ENCODERS = (
    "vision_tower",
    "vision_model",
    "visual",
    "image_tower",
    "vision_encoder",
    "vision",
    "image_encoder",
)
"""What transformers calls the encoder, in the order in which a name is taken."""

Mark = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """A model's parts by stage."""

    vision: nn.Module
    connector: tuple[nn.Module, ...]
    """In running order; empty if there is no projector that can be told apart from the encoder."""
    language: nn.Module | None
    encoder_tokens: int
    """Tokens that the encoder returned in the recorded pass."""
    connector_tokens: int
    """Tokens that the language model got in it."""
    encoder_calls: int
    connector_calls: int
    """Numbers of calls in it: one for the batch, or one for each image or tile."""
    warnings: tuple[str, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages that can be told apart, in running order."""
        connector = ("connector",) if self.connector else ()
        return ("vision", *connector, *(("prefill",) if self.language is not None else ()))


@dataclass(eq=False)
class _Call:
    module: nn.Module
    given: Tensor | None
    returned: Tensor | None = None
    children: list[_Call] = field(default_factory=list)


class _LanguageModelReachedError(Exception):
    """Raised to end the recorded pass."""


def find_parts(model: PreTrainedModel, inputs: dict[str, Any]) -> Parts:
    """Find the parts by a pass of `inputs` up to the language model. Raises what the model raises."""
    language = _language(model)
    run = _watched(model, inputs, language)
    names = {id(module): name for name, module in model.named_modules()}
    embedding = _embedding(model)
    outermost = [
        call
        for call in _outermost(run[0], _ancestors(language, names, model))
        if call.module is not embedding and any(True for _ in call.module.parameters())
    ]
    named = (call for call in outermost if names[id(call.module)].rsplit(".", 1)[-1] in ENCODERS)
    encoder = next(named, outermost[0] if outermost else run[0])
    after = outermost[outermost.index(encoder) + 1 :] if encoder in outermost else []
    after = [call for call in after if call.module is not encoder.module]
    after = after or _projector(encoder, _width(model, language))
    warnings, told = [], partial(NOT_APART.format, model_type=model.config.model_type)
    if not after:
        warnings.append(told(stage="connector", other="vision"))
    if language is None:
        warnings.append(told(stage="prefill", other="the stage before it"))
    connector = tuple(dict.fromkeys(call.module for call in after))
    encoders = [call for call in run if call.module is encoder.module]
    # a projector may also embed the language model's own tokens, before any image
    connectors = [call for call in run[run.index(encoder) :] if call.module in connector]
    source = [call.given for call in connectors if call.module is connector[0]]
    ends = [call.returned for call in connectors if call.module is connector[-1]]
    return Parts(
        encoder.module, connector, language,
        encoder_tokens=_tokens(source or [call.returned for call in encoders]),
        connector_tokens=_tokens(ends or [call.returned for call in encoders]),
        encoder_calls=len(encoders), connector_calls=len(connectors), warnings=tuple(warnings),
    )  # fmt: skip


def mark_stages(model: PreTrainedModel, parts: Parts, begin: Mark, end: Mark) -> list[RemovableHandle]:
    """Call `begin(stage)` and `end(stage)` once for each of `parts.stages` in every forward pass from now on.

    If the projector is inside the encoder, the stage `vision` ends where it begins. `prefill` ends with the
    whole model. Remove the handles to stop.
    """
    marks = _Marks(parts.stages, begin, end)
    handles = [
        model.register_forward_pre_hook(lambda *_: marks.restart()),
        parts.vision.register_forward_pre_hook(lambda *_: marks.enter("vision")),
        parts.vision.register_forward_hook(lambda *_: marks.left("vision", parts.encoder_calls)),
        model.register_forward_hook(lambda *_: marks.finish()),
    ]
    for module in parts.connector:
        handles.append(module.register_forward_pre_hook(lambda *_: marks.enter("connector")))
        handles.append(
            module.register_forward_hook(lambda *_: marks.left("connector", parts.connector_calls))
        )
    if parts.language is not None:
        handles.append(parts.language.register_forward_pre_hook(lambda *_: marks.enter("prefill")))
    return handles


class _Marks:
    """The stage that a forward pass is in."""

    def __init__(self, stages: tuple[str, ...], begin: Mark, end: Mark) -> None:
        self._stages = stages
        self._begin = begin
        self._end = end
        self._at = -1
        self._running = False
        self._calls = 0

    def restart(self) -> None:
        self._at, self._running, self._calls = -1, False, 0

    def enter(self, stage: str) -> None:
        i = self._stages.index(stage)
        if i <= self._at or (stage == "connector" and self._at < 0):
            return
        self.finish()
        self._at, self._running, self._calls = i, True, 0
        self._begin(stage)

    def left(self, stage: str, calls: int) -> None:
        """End a stage after `calls` calls of its modules: what follows is glue."""
        if self._running and self._stages[self._at] == stage:
            self._calls += 1
            if self._calls == calls:
                self.finish()

    def finish(self) -> None:
        if self._running:
            self._end(self._stages[self._at])
            self._running = False


def _language(model: PreTrainedModel) -> nn.Module | None:
    path = architecture(model.config.model_type).language
    found: Any = model.get_submodule(path) if path else model.get_decoder()
    return None if found is model or found is model.base_model else found


def _embedding(model: PreTrainedModel) -> nn.Module | None:
    """Return the language model's token embedding, if transformers knows it."""
    try:
        found: nn.Module = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return found


def _width(model: PreTrainedModel, language: nn.Module | None) -> int | None:
    config = getattr(language, "config", None) or model.config.get_text_config()
    return getattr(config, "hidden_size", None)


def _watched(model: PreTrainedModel, inputs: dict[str, Any], language: nn.Module | None) -> list[_Call]:
    """Return the calls of a pass up to the language model in the order in which they begin."""
    run = [_Call(model, None)]
    stack = [*run]

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if module is language:
            raise _LanguageModelReachedError
        call = _Call(module, _first_tensor((args, kwargs)))
        stack[-1].children.append(call)
        stack.append(call)
        run.append(call)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        stack.pop().returned = _first_tensor(output)

    handles: list[RemovableHandle] = []
    for module in model.modules():
        if module is not model:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        with torch.inference_mode():
            model(**inputs, use_cache=False)
    except _LanguageModelReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return run


def _ancestors(language: nn.Module | None, names: dict[int, str], model: nn.Module) -> set[int]:
    """Return the modules that contain the language model, and so are no parts themselves."""
    path = (
        names.get(id(language), "") if language is not None else getattr(model, "base_model_prefix", "") + "."
    )
    around = {id(model)}
    for end in (i for i, letter in enumerate(path) if letter == "."):
        around.add(id(model.get_submodule(path[:end])))
    return around


def _outermost(call: _Call, around: set[int]) -> list[_Call]:
    found = []
    for child in call.children:
        found += _outermost(child, around) if id(child.module) in around else [child]
    return found


def _projector(encoder: _Call, width: int | None) -> list[_Call]:
    """Return the calls in an encoder from its last change of shape on, if that is to this width."""
    for i, call in reversed(list(enumerate(encoder.children))[1:]):
        if call.given is None or call.returned is None or call.given.shape == call.returned.shape:
            continue
        return encoder.children[i:] if _channels(call.returned) == width else []
    return []


def _tokens(tensors: list[Tensor | None]) -> int:
    """Count the vectors in tensors (…, channels) or maps (batch, channels, rows, columns)."""
    return sum(
        tensor.numel() // _channels(tensor) for tensor in tensors if tensor is not None and tensor.ndim
    )


def _channels(tensor: Tensor) -> int:
    return int(tensor.shape[1] if tensor.ndim == 4 else tensor.shape[-1])


def _first_tensor(value: Any) -> Tensor | None:
    """Return the first floating-point tensor in arguments or an output."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() and value.ndim > 1 else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            found = _first_tensor(inner)
            if found is not None:
                return found
    return None
