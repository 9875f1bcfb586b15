"""Stage `decode`: further tokens, one at a time, from the state that prefill leaves behind.

embeddings ──prefill_cached──▶ Context ──decode_step──▶ Context ──decode_step──▶ …

A VLM of transformers makes the first context itself, of what its processor makes of a photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from vlmprof.vlm.llm_config import state_of
from vlmprof.vlm.model import VLM


@dataclass(frozen=True)
class Context:
    """What decoding goes on from."""

    token: Tensor
    """The next token of each sequence, (batch, 1)."""
    state: Mapping[str, Any]
    """The cache under transformers' name for it."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What every step takes besides the token and the state, such as the encoder's output."""
    token_argument: str = "input_ids"
    """What a step calls the token."""
    logits: Tensor | None = None
    """Of the step that chose the token, (batch, 1, vocabulary); None after prefill, which may have many."""

    def state_bytes(self) -> int:
        """Bytes of all tensors in the state: for attention, the key–value cache."""
        return sum(tensor.nbytes for tensor in self.state_tensors())

    def state_tensors(self) -> Iterator[Tensor]:
        """The tensors in the state."""
        return _tensors(self.state, set())


class Decoder(Protocol):
    """A VLM, composed or of transformers."""

    @property
    def language(self) -> Any:
        """What takes a token and the state before it."""


def prefill_cached(vlm: VLM, embeddings: Tensor) -> Context:
    """Stage `prefill` where `decode` follows: the same pass, or passes, over (batch, visual tokens, hidden
    size) embeddings, which now keep their state."""
    return context_of(vlm.pass_llm(embeddings, use_cache=True))


def decode_step(vlm: Decoder, context: Context) -> Context:
    """One further token, chosen greedily on the device."""
    token = {context.token_argument: context.token}
    output = vlm.language(**token, use_cache=True, **context.state, **context.constants)
    made = context_of(output)
    return replace(context, token=made.token, state=made.state, logits=output.logits)


def decode(vlm: Decoder, context: Context, new_tokens: int) -> Context:
    """`new_tokens` steps, none of which waits for the host to see a token."""
    for _ in range(new_tokens):
        context = decode_step(vlm, context)
    return context


def context_of(output: Any) -> Context:
    """The context after a forward pass that kept its state."""
    name = state_of(output)
    return Context(output.logits[:, -1:].argmax(-1), {} if name is None else {name: output[name]})


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """The tensors in a nest of containers and objects, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)
