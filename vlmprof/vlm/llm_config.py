"""A language model's configuration as transformers' own class reads it: its names for things, its defaults.

transformers and torch are loaded when they are asked, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from vlmprof.errors import UserError, message_of
from vlmprof.vlm.llm_facts import LLMFacts

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "decoder_layers", "num_blocks")

_READS_VALUES = "it reads values from its tensors as it runs"
_PER_LAYER = "every layer wants an embedding of the token id, which a picture's tokens lack"
_TOKEN_IDS = "it takes token ids, no embeddings"
UNSUPPORTED = {
    "blt": _TOKEN_IDS,
    "cpmant": _TOKEN_IDS,
    "gemma4": _PER_LAYER,
    "gemma4_text": _PER_LAYER,
    "reformer": _READS_VALUES,
    "xlm": _READS_VALUES,
    "xlnet": "it makes its positions on the CPU wherever it runs",
}
"""Causal language models of transformers that cannot follow a connector or be counted, and why."""

ONE_BY_ONE = (
    # they count the positions of embeddings from the start of every chunk
    "camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
    # so do these before transformers 5.24
    "megatron-bert", "rembert",
    # these fail, or give other logits as soon as they keep a cache
    "dory", "prophetnet",
)  # fmt: skip
"""Types with a key–value cache that only single tokens go on from."""

RECURRENT_IN_CHUNKS = (
    "bailing_hybrid", "falcon_h1", "granitemoehybrid", "inkling2_loop_text", "inkling2_text",
    "inkling_text", "kimi_linear", "lara_mini", "lfm2", "lfm2_moe", "lfm3", "mamba2", "minimax",
    "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text",
    "qwen3_next", "zamba2", "zaya",
)  # fmt: skip
"""Types with recurrent layers whose state several tokens at once extend as one pass would."""

PROBED_POSITIONS = 256
"""More than one window or chunk of most models."""

STATES = ("cache", "past_key_values", "cache_params", "state")
"""What transformers calls what decoding goes on from, newest first: `cache` is a key–value cache or a
state-space model's since 5.24, `state` is RWKV's."""


_BUILT: dict[tuple[str, str, str], LLMFacts] = {}
"""By name, model type and configuration: a file may change between two uses."""


def build_config(name: str, model_type: str, values: Mapping[str, Any]) -> Any:
    """The transformers configuration of an architecture, with `values` in place of its defaults.

    An architecture that may be encoder or decoder is a decoder unless `values` says otherwise. Raises
    `UserError` where `name` is no causal language model, or has values that transformers does not take.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING:
        raise UserError(f"language model {name!r}: transformers knows no model type {model_type!r}")
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"language model {name!r}: {model_type} is no causal language model of transformers")
    if model_type in UNSUPPORTED:
        raise UserError(f"language model {name!r}: {model_type} is not supported: {UNSUPPORTED[model_type]}")
    try:
        config = CONFIG_MAPPING[model_type].from_dict({**values, "model_type": model_type})
    except Exception as problem:  # each class has checks of its own
        raise UserError(
            f"language model {name!r}: transformers does not take its configuration ({reason(problem)})"
        ) from problem
    if "is_decoder" not in values and getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    _fill_in(config.get_text_config(decoder=True))
    config.use_cache = False
    return config


def build_model(name: str, config: Any, **options: Any) -> Any:
    """The model of a configuration, on torch's default device. Raises `UserError` if it cannot be built."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config, **options)
    except Exception as problem:  # what an architecture raises at values that do not go together
        if isinstance(problem, RuntimeError | MemoryError) and not isinstance(problem, NotImplementedError):
            raise  # memory may have run out
        raise UserError(
            f"language model {name!r}: transformers cannot build it ({reason(problem)})"
        ) from problem


def built_facts(name: str, model_type: str, values: Mapping[str, Any]) -> LLMFacts:
    """Build the model without data and run some embeddings through it; `values` are its configuration's.

    Raises `UserError` where it cannot be built, takes no embeddings, or stumbles over its configuration.
    """
    key = name, model_type, repr(values)
    if key not in _BUILT:
        _BUILT[key] = _built_facts(name, model_type, values)
    return _BUILT[key]


def _built_facts(name: str, model_type: str, values: Mapping[str, Any]) -> LLMFacts:
    import torch

    from vlmprof.backbones.random_weights import uninitialised
    from vlmprof.vlm.attention import attention_path

    config = build_config(name, model_type, values)
    with uninitialised("meta", torch.bfloat16):
        model = build_model(name, config, dtype=torch.bfloat16).eval()
    table, parameters = model.get_input_embeddings(), signature(model.forward).parameters
    if "inputs_embeds" not in parameters or not hasattr(table, "weight"):
        raise UserError(f"language model {name!r}: {model_type} takes token ids, no embeddings")
    vocab_size, hidden_size = table.weight.shape
    embeddings = torch.empty(1, PROBED_POSITIONS, hidden_size, device="meta", dtype=torch.bfloat16)
    try:
        with torch.inference_mode():
            model(inputs_embeds=embeddings, use_cache=False)
    except RuntimeError:
        pass  # it may want values or kernels that tensors without data lack
    except Exception as problem:
        raise UserError(
            f"language model {name!r}: {model_type} does not run with this configuration ({reason(problem)})"
        ) from problem
    decodes, chunks = _state_of_model(model, embeddings)
    return LLMFacts(
        name=name,
        model_type=model_type,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=_layer_count(config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        config=values,
        decodes=decodes,
        chunks=chunks,
        keeps_last_logits="logits_to_keep" in parameters,
        attention=attention_path(model),
    )


def _state_of_model(model: Any, embeddings: Any) -> tuple[bool, bool]:
    """Whether a forward pass that is to keep a state does so, and whether chunks of a prompt extend it."""
    import torch

    try:
        with torch.inference_mode():
            output = model(inputs_embeds=embeddings, use_cache=True)
    except RuntimeError:
        return True, False  # as above
    except Exception:
        return False, False
    name = state_of(output)
    return name is not None, name is not None and _takes_chunks(model.config.model_type, output[name])


def _takes_chunks(model_type: str, state: Any) -> bool:
    """Whether several tokens at once can extend a state: keys and values can be, what recurrent layers keep
    only where transformers' code for that type does it right."""
    if model_type in ONE_BY_ONE or not hasattr(state, "get_seq_length"):
        return False
    layers = getattr(getattr(state, "self_attention_cache", state), "layers", ())
    bases = {base.__name__ for layer in layers for base in type(layer).__mro__}
    recurrent = any(name.startswith("LinearAttention") for name in bases)
    return not recurrent or model_type in RECURRENT_IN_CHUNKS


def state_of(output: Any) -> str | None:
    """The name of the state in what a forward pass returned, if it keeps one."""
    return next((name for name in STATES if output.get(name) is not None), None)


def _layer_count(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)
    found = (getattr(text, key, None) for key in LAYER_COUNTS)
    return next((value for value in found if isinstance(value, int)), None)


def reason(problem: BaseException) -> str:
    """What was wrong, in one line: of a check that failed, what it found."""
    said = problem.__cause__ if type(problem).__name__.startswith("StrictDataclass") else None
    return message_of(said or problem)


def _fill_in(text: Any) -> None:
    """What some classes leave open although their models read it: as many key–value heads as heads, and
    heads that share the hidden size."""
    heads, hidden = _value(text, "num_attention_heads"), _value(text, "hidden_size")
    if not isinstance(heads, int) or not heads:
        return
    if _value(text, "num_key_value_heads") is None:
        text.num_key_value_heads = heads
    if _value(text, "head_dim") is None and isinstance(hidden, int):
        text.head_dim = hidden // heads


def _value(text: Any, key: str) -> object:
    """One value of a configuration; `""` where it has none of that name, or one for each layer."""
    try:
        return getattr(text, key, "")
    except Exception:  # transformers raises an error of its own for what differs between layers
        return ""
