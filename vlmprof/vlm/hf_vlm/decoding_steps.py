"""What a step of decoding takes besides the token and the cache, for the architectures that need more.

transformers' `generate` makes them anew before each step; for one photo they are the same in all steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from vlmprof.vlm.decoding import Context, context_of
from vlmprof.vlm.llm_config import STATES

Inputs = Mapping[str, Any]


def _last_rows(name: str) -> Callable[[Inputs, Any], dict[str, Any]]:
    """Take a mask (batch, positions, …) of what each token sees of the images: a new one sees what the last
    does."""
    return lambda inputs, output: {name: inputs[name][:, -1:]}


def _image_states(inputs: Inputs, output: Any) -> dict[str, Any]:
    encoded = getattr(output, "image_outputs", None)
    # transformers 5.17 returns the states alone
    states = output.image_hidden_states if encoded is None else encoded.last_hidden_state
    return {"image_encoder_embeddings": states, **_last_rows("image_attention_mask")(inputs, output)}


def _encoded(inputs: Inputs, output: Any) -> dict[str, Any]:
    mask = inputs.get("attention_mask")
    encoded = BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)
    return {"encoder_outputs": encoded, **({} if mask is None else {"attention_mask": mask})}


@dataclass(frozen=True)
class Steps:
    """How one architecture continues."""

    constants: Callable[[Inputs, Any], dict[str, Any]] = lambda inputs, output: {}
    """Makes the further inputs of every step from the inputs and the output of the first pass."""
    token_argument: str = "input_ids"
    takes_tokens: str = ""
    """The path of what takes further tokens, if not the whole model."""
    makes_cache: bool = True
    """Whether the model makes a cache if it is given none."""


def steps(config: Any) -> Steps:
    """Return how a configuration's model continues; most need nothing but the token and the cache."""
    return STEPS.get(config.model_type, Steps())


def first_context(model: PreTrainedModel, inputs: dict[str, Any]) -> Context:
    """Run a pass that keeps its cache; return what decoding continues from."""
    known = steps(model.config)
    if not known.makes_cache:
        parameters = inspect.signature(type(model).forward).parameters
        name = next(name for name in STATES if name in parameters)
        inputs = {**inputs, name: DynamicCache(config=model.config.get_text_config())}
    output: Any = model(**inputs)
    of_text = getattr(output, "language_model_outputs", None)
    return replace(
        context_of(output if of_text is None else of_text),
        constants=known.constants(inputs, output),
        token_argument=known.token_argument,
    )


ENCODER_DECODER = Steps(_encoded, token_argument="decoder_input_ids")
STEPS: dict[str, Steps] = {
    "blip-2": Steps(takes_tokens="language_model"),
    "florence2": ENCODER_DECODER,
    "granite4_vision": Steps(makes_cache=False),
    "idefics": Steps(_image_states),
    "instructblip": Steps(takes_tokens="language_model"),
    "kosmos-2": Steps(takes_tokens="text_model"),
    "mllama": Steps(_last_rows("cross_attention_mask")),
    "pix2struct": ENCODER_DECODER,
    "t5gemma2": ENCODER_DECODER,
}
