"""Language models as transformers builds them, with random weights made where they are used."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, masking_utils

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.errors import UserError
from vlmprof.vlm.llm_catalog import LLMFacts, facts


def create_llm(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> PreTrainedModel:
    """A frozen transformers causal LM in eval mode, every parameter made on `device` in `dtype`.

    No other copy of the weights ever exists, neither in float32 nor on the host. Raises `UserError` for
    an unknown name or a configuration that transformers cannot build.
    """
    known = facts(name)
    config = configuration(known)
    _assume_one_sequence_per_row()
    attends = hasattr(config, "num_attention_heads")
    choice = {"attn_implementation": "sdpa"} if attends else {}
    try:
        with uninitialised(device, dtype):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **choice)
    except (ValueError, KeyError, ImportError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(f"language model {name!r}: transformers cannot build it ({reason})") from problem
    fill(model, seed)
    return model


def _assume_one_sequence_per_row() -> None:
    """Keep transformers from looking for several sequences packed into one row, which ours never are.

    It would look in every forward without a cache, by reading a value back from the device: the host would
    wait in the middle of a stage for all that came before. Where it must not wait, compiled or captured, it
    would take the rows for packed and attend by a mask of positions × positions.
    """
    if hasattr(masking_utils, "find_packed_sequence_indices"):
        masking_utils.find_packed_sequence_indices = _not_packed


def masks_traced_prefill() -> bool:
    """Whether this transformers attends by a mask of positions × positions while it is compiled or captured.

    Before 5.18 it does (`masking_utils._ignore_causal_mask_sdpa`), and needs none when run eagerly.
    """
    major, minor = transformers.__version__.split(".")[:2]
    return (int(major), int(minor)) < (5, 18)


def _not_packed(position_ids: Tensor) -> None:
    return None


def configuration(known: LLMFacts) -> Any:
    """The transformers configuration of these facts."""
    try:
        config = AutoConfig.for_model(known.model_type, **known.config)
    except (ValueError, TypeError, KeyError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UserError(
            f"language model {known.name!r}: transformers does not take its configuration ({reason})"
        ) from problem
    config.use_cache = False
    return config
