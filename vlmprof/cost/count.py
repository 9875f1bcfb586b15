"""The counted cost of a cell: the same parts that a cell's process builds, made on `meta`.

Nothing is allocated: Vicuna-7B under a 6144² image is counted on a laptop in about a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones import create_backbone, names
from vlmprof.backbones import facts as backbone_facts
from vlmprof.backbones.facts import DEFAULT_LEVEL
from vlmprof.backbones.interface import Backbone
from vlmprof.cost.costs import CellCost, StageCost
from vlmprof.cost.dispatch_counter import Attention, count_call, count_module
from vlmprof.cost.liveness import in_blocks
from vlmprof.cost.scans import Kernels
from vlmprof.errors import UserError
from vlmprof.plan import Cell
from vlmprof.settings import Settings
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.decoding import decode_step, prefill_cached
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_catalog import facts as llm_facts
from vlmprof.vlm.model import VLM

COUNTED_STAGES = ("vision", "connector", "prefill", "decode")
META = torch.device("meta")
BUILT_ONCE = tuple(f"vlmprof.backbones.{family}" for family in ("vit", "vitdet", "vmamba", "mambavision"))
"""Modules whose backbones keep nothing of a size but what `prepare` replaces. Others are built for each."""


def count(
    backbone: str,
    height: int,
    width: int,
    *,
    llm: str,
    connector: str = "mlp2",
    dtype: str = "bfloat16",
    batch_size: int = 1,
    level: int = DEFAULT_LEVEL,
    levels: str = "through-tap",
    stages: Sequence[str] = ("vision", "connector", "prefill"),
    prompt_tokens: int = 0,
    new_tokens: int = 1,
    logits: str = "all",
    outputs: str = "freed",
    attention: str = "auto",
    kernels: Kernels = "triton",
    in_full: bool = False,
) -> CellCost:
    """The cost of one iteration on images of height × width pixels; the axes are a sweep's.

    `kernels` says whose implementation of the scans is counted (`vlmprof.cost.scans`). `attention` as in a
    sweep: `math` is several operations with N² scores in memory, everything else one without. `decode` is
    `new_tokens` further tokens, each counted like the first. `preprocess` is not counted: it is the
    host's. What was counted before is looked up, unless everything is to be counted `in_full`, to the same
    result. Raises `UserError` for names and sizes that cannot be.
    """
    precision = getattr(torch, dtype)
    how: Attention = "math" if attention == "math" else "fused"
    # what stands in a user's own file may be another backbone the next time
    remembered = not in_full and backbone in names()
    vision_costs = _vision_costs if remembered else _vision_costs.__wrapped__
    vision_cost, tokens, images_bytes = vision_costs(
        backbone, height, width, dtype, batch_size, level, levels, how, kernels, remembered, in_full
    )
    held_images = 0 if "preprocess" in stages else in_blocks(images_bytes)
    costs = {"vision": vision_cost}
    if "connector" in stages:
        joint = create_connector(
            connector,
            backbone_facts(backbone, level).embed_dim,
            llm_facts(llm).hidden_size,
            device=META,
            dtype=precision,
        )
        costs["connector"] = count_module(joint, tokens, kernels=kernels, in_full=in_full)
    if "prefill" in stages:
        decoded = new_tokens if "decode" in stages else 0
        language_costs = _language_costs.__wrapped__ if in_full else _language_costs
        costs |= language_costs(
            llm, dtype, batch_size, tokens.shape[1], prompt_tokens, logits, how, decoded, in_full
        )
    wanted = {stage: cost for stage, cost in costs.items() if stage in stages}
    last = next(reversed(wanted.values()), None)
    kept = in_blocks(last.output_bytes) + last.kv_cache_bytes if last and outputs == "kept" else 0
    held = {stage: kept + (held_images if stage != "vision" else 0) for stage in wanted}
    return CellCost(wanted, visual_tokens=tokens.shape[1], held_bytes=held)


def count_cell(cell: Cell, settings: Settings, kernels: Kernels = "triton") -> CellCost:
    """The cost of a planned cell under a sweep's settings. Raises `UserError` for a VLM of transformers."""
    axes = cell.axes
    if axes.vlm is not None:
        raise UserError(f"{axes.vlm}: only a backbone with an llm is counted, no VLM of transformers")
    if settings.autocast:
        raise UserError("autocast: only running shows which tensors it makes float32; costs are not counted")
    return count(
        axes.backbone,
        cell.height_px,
        cell.width_px,
        llm=axes.llm,
        connector=axes.connector,
        dtype=axes.dtype,
        batch_size=axes.batch_size,
        level=axes.level,
        levels=axes.levels,
        stages=settings.stages,
        prompt_tokens=settings.prompt_tokens,
        new_tokens=settings.new_tokens,
        logits=settings.logits,
        outputs=settings.outputs,
        attention=axes.attention,
        kernels=kernels,
    )


@lru_cache(maxsize=256)
def _vision_costs(
    backbone: str,
    height: int,
    width: int,
    dtype: str,
    batch_size: int,
    level: int,
    levels: str,
    attention: Attention,
    kernels: Kernels,
    remembered: bool,
    in_full: bool,
) -> tuple[StageCost, Tensor, int]:
    """`vision`, the tokens that it makes, and the bytes of the images; LLMs and connectors share them."""
    precision = getattr(torch, dtype)
    backend: Literal["triton", "auto"] = "triton" if kernels == "triton" else "auto"
    known = backbone_facts(backbone, level)
    known.check_size(height, width)
    if remembered and known.module in BUILT_ONCE:
        vision = _encoder(backbone, level, levels, backend, dtype)
        with torch.inference_mode(False):
            vision.prepare(height, width)
    else:
        vision = _encoder.__wrapped__(backbone, level, levels, backend, dtype, (height, width))
    images = torch.empty(batch_size, 3, height, width, device=META, dtype=precision)
    cost, tokens = count_call(vision, images, kernels=kernels, attention=attention, in_full=in_full)
    return cost, tokens, images.numel() * images.element_size()


@lru_cache(maxsize=4)
def _encoder(
    backbone: str,
    level: int,
    levels: str,
    kernels: Literal["triton", "auto"],
    dtype: str,
    image_size: tuple[int, int] | None = None,
) -> Backbone:
    """A backbone without data; without a size, not prepared for any."""
    return create_backbone(
        backbone,
        level=level,
        levels=levels,
        kernels=kernels,
        image_size=image_size,
        device=META,
        dtype=getattr(torch, dtype),
    )


@lru_cache(maxsize=256)
def _language_costs(
    llm: str,
    dtype: str,
    batch_size: int,
    visual_tokens: int,
    prompt_tokens: int,
    logits: str,
    attention: Attention,
    new_tokens: int,
    in_full: bool,
) -> dict[str, StageCost]:
    """`prefill` and, if there are new tokens, `decode`; backbones with as many visual tokens share them."""
    model = _language_model(llm, dtype)
    prompt = torch.empty(prompt_tokens, device=META, dtype=torch.long)
    vlm = VLM(nn.Identity(), nn.Identity(), model, prompt=prompt, logits=logits)
    embeddings = torch.empty(
        batch_size, visual_tokens, llm_facts(llm).hidden_size, device=META, dtype=getattr(torch, dtype)
    )
    if not new_tokens:
        return {
            "prefill": count_module(model, embeddings, call=vlm.prefill, attention=attention, in_full=in_full)
        }
    prefill, context = count_call(
        model, embeddings, call=lambda given: prefill_cached(vlm, given), attention=attention, in_full=in_full
    )
    kv_cache_bytes = context.state_bytes()
    step = count_module(
        model, context.token, call=lambda _: decode_step(vlm, context), attention=attention, in_full=in_full
    )
    decode = replace(
        step,
        ops={op: n * new_tokens for op, n in step.ops.items()},
        kv_cache_bytes=kv_cache_bytes,
        # the first step starts with the cache in memory, which it did not allocate
        peak_activation_bytes=step.peak_activation_bytes + kv_cache_bytes,
    )
    return {"prefill": replace(prefill, kv_cache_bytes=kv_cache_bytes), "decode": decode}


@lru_cache(maxsize=4)
def _language_model(llm: str, dtype: str) -> PreTrainedModel:
    return create_llm(llm, device=META, dtype=getattr(torch, dtype))
