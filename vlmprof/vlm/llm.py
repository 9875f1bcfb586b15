"""Language models as transformers builds them, with random weights made where they are used."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, masking_utils

from vlmprof.backbones.random_weights import RandomValues, fill, uninitialised
from vlmprof.settings import LLMPrecision
from vlmprof.vlm.llm_catalog import facts
from vlmprof.vlm.llm_config import build_config, build_model
from vlmprof.vlm.quantization import linears_without_data, quantize


def create_llm(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    precision: LLMPrecision = "as-dtype",
) -> PreTrainedModel:
    """A frozen transformers causal LM in eval mode, every parameter made on `device` in `dtype`.

    No other copy of the weights ever exists, neither in float32 nor on the host. With a `precision`, linear
    layers are made and quantized one after another. Raises `UserError` for an unknown name, a configuration
    that transformers cannot build, and a model that torchao does not quantize.
    """
    known = facts(name)
    config = build_config(name, known.model_type, known.config)
    _assume_one_sequence_per_row()
    one_by_one = linears_without_data() if precision != "as-dtype" else nullcontext()
    with uninitialised(device, dtype), one_by_one:
        model: PreTrainedModel = build_model(name, config, dtype=dtype)
    fill(model, seed)
    if precision == "as-dtype":
        return model
    values = RandomValues(seed)

    def weight(name: str, layer: nn.Linear) -> Tensor:
        empty = torch.empty_like(layer.weight, device=device)
        return values.fill(f"{name}.weight", empty)

    quantize(model, precision, weight)
    return model


def _assume_one_sequence_per_row() -> None:
    """Keep transformers from looking for several sequences packed into one row, which ours never are.

    It would look in every forward without a cache, by reading a value back from the device: the host would
    wait in the middle of a stage for all that came before. Where it must not wait, compiled or captured, it
    would take the rows for packed and attend by a mask of positions × positions.
    """
    masking_utils.find_packed_sequence_indices = lambda position_ids: None


def masks_traced_prefill() -> bool:
    """Whether this transformers attends by a mask of positions × positions while it is compiled or captured.

    Before 5.18 it does (`masking_utils._ignore_causal_mask_sdpa`), and needs none when run eagerly.
    """
    major, minor = transformers.__version__.split(".")[:2]
    return (int(major), int(minor)) < (5, 18)
