"""The counted cost of a cell: the same parts that a cell's process builds, made on `meta`.

Nothing is allocated: Vicuna-7B under a 6144² image is counted on a laptop in about a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from vlmprof.backbones import create_backbone
from vlmprof.cost.counted import CellCost, StageCost
from vlmprof.cost.counter import Attention, count_call, count_module
from vlmprof.cost.liveness import in_blocks
from vlmprof.cost.scans import Kernels
from vlmprof.plan import Cell
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.decoding import decode_step, prefill_cached
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_catalog import facts as llm_facts
from vlmprof.vlm.model import VLM

COUNTED_STAGES = ("vision", "connector", "prefill", "decode")
META = torch.device("meta")


def count(
    backbone: str,
    height: int,
    width: int,
    *,
    llm: str,
    connector: str = "mlp2",
    dtype: str = "bfloat16",
    batch_size: int = 1,
    levels: str = "through-tap",
    stages: Sequence[str] = ("vision", "connector", "prefill"),
    prompt_tokens: int = 0,
    logits: str = "all",
    attention: str = "sdpa",
    kernels: Kernels = "triton",
) -> CellCost:
    """The cost of one iteration on images of height × width pixels; the axes are a sweep's.

    `kernels` says whose implementation of the scans is counted (`vlmprof.cost.scans`), `attention` is
    the LLM's: `sdpa` or a flash kernel is one operation, `eager` several. `decode` is one further token
    after the prompt. Stages that are not counted, such as `preprocess`, are passed over.
    Raises `UserError` for names and sizes that cannot be.
    """
    precision = getattr(torch, dtype)
    vision = create_backbone(
        backbone, levels=levels, image_size=(height, width), device=META, dtype=precision
    )
    images = torch.empty(batch_size, 3, height, width, device=META, dtype=precision)
    vision_cost, tokens = count_call(vision, images, kernels=kernels)
    held_images = 0 if "preprocess" in stages else in_blocks(images.numel() * images.element_size())
    costs = {"vision": vision_cost}
    held: dict[str, int] = {}
    if "connector" in stages:
        joint = create_connector(
            connector, vision.facts.embed_dim, llm_facts(llm).hidden_size, device=META, dtype=precision
        )
        costs["connector"] = count_module(joint, tokens, kernels=kernels)
    if "prefill" in stages:
        tokens_per_image = tokens.shape[1]
        costs |= _language_costs(
            llm, dtype, batch_size, tokens_per_image, prompt_tokens, logits, attention, "decode" in stages
        )
    if held_images:
        held = {stage: held_images for stage in costs if stage != "vision"}
    wanted = {stage: cost for stage, cost in costs.items() if stage in stages}
    return CellCost(wanted, visual_tokens=tokens.shape[1], held_bytes=held)


def count_cell(cell: Cell, fixed: Mapping[str, Any], kernels: Kernels = "triton") -> CellCost:
    """The cost of a planned cell under a sweep's settings."""
    axes = cell.axes
    return count(
        str(axes["backbone"]),
        cell.height_px,
        cell.width_px,
        llm=str(axes["llm"]),
        connector=str(axes["connector"]),
        dtype=str(axes["dtype"]),
        batch_size=int(axes["batch_size"]),
        levels=str(axes["levels"]),
        stages=tuple(fixed["stages"]),
        prompt_tokens=int(fixed["prompt_tokens"]),
        logits=str(fixed["logits"]),
        attention=str(axes.get("attention", "sdpa")),
        kernels=kernels,
    )


@lru_cache(maxsize=256)
def _language_costs(
    llm: str,
    dtype: str,
    batch_size: int,
    visual_tokens: int,
    prompt_tokens: int,
    logits: str,
    attention: str,
    decode: bool,
) -> dict[str, StageCost]:
    """`prefill` and, if wanted, `decode`; backbones that hand over as many tokens share them."""
    model = _language_model(llm, dtype, attention)
    fused: Attention = "fused" if attention != "eager" else "math"
    prompt = torch.empty(prompt_tokens, device=META, dtype=torch.long)
    vlm = VLM(nn.Identity(), nn.Identity(), model, prompt=prompt, logits=logits)
    embeddings = torch.empty(
        batch_size, visual_tokens, llm_facts(llm).hidden_size, device=META, dtype=getattr(torch, dtype)
    )
    if not decode:
        return {"prefill": count_module(model, embeddings, call=vlm.prefill, attention=fused)}
    prefill, context = count_call(
        model, embeddings, call=lambda given: prefill_cached(vlm, given), attention=fused
    )
    kv_cache_bytes = context.state_bytes()
    step = count_module(model, context.token, call=lambda _: decode_step(vlm, context), attention=fused)
    # the step starts with the cache in memory, which it did not allocate
    step = replace(
        step,
        kv_cache_bytes=kv_cache_bytes,
        peak_activation_bytes=step.peak_activation_bytes + kv_cache_bytes,
    )
    return {"prefill": replace(prefill, kv_cache_bytes=kv_cache_bytes), "decode": step}


@lru_cache(maxsize=4)
def _language_model(llm: str, dtype: str, attention: str) -> PreTrainedModel:
    # flash kernels are CUDA's alone; what they compute is what fused attention is counted as
    built = "eager" if attention == "eager" else "sdpa"
    return create_llm(llm, device=META, dtype=getattr(torch, dtype), attention=built)
