"""Language models as transformers builds them, with random weights made where they are used."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, masking_utils

from vlmprof.backbones.random_weights import fill, uninitialised
from vlmprof.vlm.llm_catalog import LLMFacts, facts
from vlmprof.vlm.llm_config import build_config, build_model


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
    with uninitialised(device, dtype):
        model: PreTrainedModel = build_model(name, config, dtype=dtype)
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
    """The transformers configuration of these facts. Raises `UserError` as `build_config` does."""
    return build_config(known.name, known.model_type, known.config)
