"""The counted cost of a cell: its parts are built as they would be for a measurement, but on `meta`.

Nothing is allocated, so that a laptop counts Vicuna-7B with a 6144² image in about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones import facts as backbone_facts
from vlmprof.backbones import names
from vlmprof.backbones.interface import Backbone
from vlmprof.cost.costs import CellCost, StageCost
from vlmprof.cost.dispatch_counter import Attention, count_call, count_module
from vlmprof.cost.liveness import in_blocks
from vlmprof.cost.quantized import stand_in
from vlmprof.cost.scans import Kernels
from vlmprof.errors import UserError, error_line, message_of
from vlmprof.plan import Cell
from vlmprof.settings import Dtype, LLMPrecision, Settings
from vlmprof.vlm import connector_catalog, llm_catalog
from vlmprof.vlm.attention import check_attention
from vlmprof.vlm.decoding import decode_step, prefill_cached
from vlmprof.vlm.frames import in_batches
from vlmprof.vlm.model import VLM, build_connector, build_llm, build_vision, check_llm, joining, torch_dtype
from vlmprof.vlm.workload import Workload

META = torch.device("meta")
BUILT_ONCE = tuple(f"vlmprof.backbones.{family}" for family in ("vit", "vitdet", "vmamba", "mambavision"))
"""Modules whose backbones are built once and prepared for each size. Others are built again for each."""

Counted = tuple[Cell, CellCost]


def count(workload: Workload, kernels: Kernels = "triton", in_full: bool = False) -> CellCost:
    """Count the cost of one iteration of a workload, built on `meta`.

    With attention `math`, attention is several operations with N² scores in memory, otherwise one operation
    without. `decode` generates `new_tokens` tokens, each counted like the first. `preprocess` runs on the
    host and is not counted.

    Args:
        kernels: The implementation of the scans to count, see `vlmprof.cost.scans`.
        in_full: Do not reuse earlier counts. The result is the same.

    Raises `UserError` for unknown names, unsupported sizes, a model that reads values of its tensors, and
    autocast, whose casts are known only when it runs.

    >>> cost = count(Workload("vit-t", "llama-23m", height_px=224, width_px=224))
    >>> cost.visual_tokens, cost.stages["connector"].matrix_flops
    (196, 86704128)
    """
    if workload.autocast:
        raise UserError("autocast: costs cannot be counted, because its casts are known only when it runs")
    check_llm(workload)
    known = backbone_facts(workload.backbone, workload.level)
    if workload.attention != "auto" and "vision" in workload.stages and known.module not in BUILT_ONCE:
        vision = build_vision(workload, META, workload.encoder_size)
        check_attention(workload.backbone, vision, workload.attention)
    # a user's own file may define another backbone the next time
    remembered = not in_full and (workload.backbone in names() or workload.backbone.startswith("timm:"))
    vision_costs = _vision_costs if remembered else _vision_costs.__wrapped__
    try:
        vision_cost, tokens = vision_costs(_until_tokens(workload), kernels, in_full)
    except UserError:
        raise
    except Exception as problem:
        if workload.backbone in names():
            raise
        raise UserError(
            f"backbone {workload.backbone!r}: cannot count its cost ({error_line(problem)})"
        ) from problem
    visual_tokens = _visual_tokens(workload)
    held_images = 0 if "preprocess" in workload.stages else in_blocks(vision_cost.input_bytes)
    costs = {"vision": vision_cost}
    if "connector" in workload.stages:
        connector = joining(build_connector(workload, META), workload, META)
        costs["connector"] = count_module(
            connector, tokens, kernels=kernels, attention=_attention(workload), in_full=in_full
        )
    if "prefill" in workload.stages:
        language_costs = _language_costs.__wrapped__ if in_full else _language_costs
        # a configuration file may have changed the next time
        content = repr(llm_catalog.facts(workload.llm))
        on_cpu = kernels == "torch" and workload.llm_precision != "as-dtype"
        try:
            costs |= language_costs(_from_embeddings(workload), content, visual_tokens, on_cpu, in_full)
        except UserError:
            raise
        except Exception as problem:  # a model from transformers may raise anything
            raise UserError(
                f"language model {workload.llm!r}: cannot count its cost ({message_of(problem)})"
            ) from problem
    wanted: dict[str, StageCost] = {name: cost for name, cost in costs.items() if name in workload.stages}
    last = next(reversed(wanted.values()), None)
    kept = in_blocks(last.output_bytes) + last.kv_cache_bytes if last and workload.outputs == "kept" else 0
    held = {name: kept + (held_images if name != "vision" else 0) for name in wanted}
    return CellCost(wanted, visual_tokens=visual_tokens, held_bytes=held)


def count_cell(cell: Cell, settings: Settings, kernels: Kernels = "triton") -> CellCost:
    """Count the cost of a planned cell. Raises `UserError` as `count` does."""
    if cell.axes.vlm is not None:
        # importing transformers' image processors takes a second
        from vlmprof.cost.count_hf_vlm import count_hf_vlm

        return count_hf_vlm(cell.axes.vlm, cell.axes, settings, (cell.height_px, cell.width_px))
    return count(Workload.of(cell.axes, settings, cell.height_px, cell.width_px), kernels)


def count_cells(
    cells: Sequence[Cell],
    settings: Settings,
    kernels: Kernels = "triton",
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Counted]:
    """Count every cell that is not skipped, calling `on_cell` before each. Raises as `count_cell` does."""
    counted = []
    for cell in cells:
        if cell.skip_reason is None:
            on_cell(cell)
            counted.append((cell, count_cell(cell, settings, kernels)))
    return counted


def _visual_tokens(workload: Workload) -> int:
    backbone, connector = (
        backbone_facts(workload.backbone, workload.level),
        connector_catalog.facts(workload.connector),
    )
    grid = backbone.grid(*workload.encoder_size)
    if workload.tiling is None:
        return workload.frames * connector.visual_tokens(grid)
    size = workload.height_px, workload.width_px
    return workload.frames * workload.tiling.visual_tokens(*size, connector, grid)


def _until_tokens(workload: Workload) -> Workload:
    """Return a workload with only what `vision` depends on, so that other workloads can reuse its cost."""
    height, width = workload.encoder_size
    return Workload(
        workload.backbone,
        llm="",
        height_px=height,
        width_px=width,
        dtype=workload.dtype,
        batch_size=workload.encoder_batch,
        frame_batch=workload.encoded_at_once,
        level=workload.level,
        levels=workload.levels,
        attention="math" if workload.attention == "math" else "auto",
        stages=("vision",),
    )


def _from_embeddings(workload: Workload) -> Workload:
    """Do the same for `prefill` and `decode`, which depend only on the number of tokens of the backbone."""
    decodes = "decode" in workload.stages
    return Workload(
        "",
        workload.llm,
        height_px=0,
        width_px=0,
        dtype=workload.dtype,
        batch_size=workload.batch_size,
        attention="math" if workload.attention == "math" else "auto",
        llm_precision=workload.llm_precision,
        stages=("prefill", "decode") if decodes else ("prefill",),
        prompt_tokens=workload.prompt_tokens,
        new_tokens=workload.new_tokens if decodes else 0,
        logits=workload.logits,
        prefill_chunk=workload.prefill_chunk,
    )


@lru_cache(maxsize=256)
def _vision_costs(workload: Workload, kernels: Kernels, in_full: bool) -> tuple[StageCost, Tensor]:
    """Return the cost of `vision`, and its output on `meta`."""
    size = height, width = workload.height_px, workload.width_px
    known = backbone_facts(workload.backbone, workload.level)
    known.check_size(height, width)
    built = replace(workload, kernel_backend="triton" if kernels == "triton" else "auto")
    if known.module in BUILT_ONCE and not in_full:
        vision = _encoder(replace(built, height_px=0, width_px=0, batch_size=0))
        with torch.inference_mode(False):
            vision.prepare(height, width)
    else:
        vision = build_vision(built, META, size)
    images = torch.empty(
        workload.batch_size, 3, height, width, device=META, dtype=torch_dtype(workload.dtype)
    )
    cost, tokens = count_call(
        vision,
        images,
        call=partial(in_batches, vision, at_once=workload.encoded_at_once),
        kernels=kernels,
        attention=_attention(workload),
        in_full=in_full,
    )
    known.check_output(tuple(tokens.shape), workload.batch_size, height, width)
    return cost, tokens


@lru_cache(maxsize=4)
def _encoder(workload: Workload) -> Backbone:
    """Build a backbone on `meta` that is not prepared for any size yet."""
    return build_vision(workload, META, None)


@lru_cache(maxsize=256)
def _language_costs(
    workload: Workload, content: str, visual_tokens: int, on_cpu: bool, in_full: bool
) -> dict[str, StageCost]:
    """Return the costs of `prefill` and `decode`, which depend only on the number of visual tokens and, of a
    quantized LLM, on whether it runs `on_cpu`."""
    model = _language_model(workload.llm, content, workload.dtype, workload.llm_precision, on_cpu)
    counted = partial(count_call, model, attention=_attention(workload), in_full=in_full)
    prompt = torch.empty(workload.prompt_tokens, device=META, dtype=torch.long)
    vlm = VLM(
        nn.Identity(), nn.Identity(), model,
        prompt=prompt, logits=workload.logits, prefill_chunk=workload.prefill_chunk,
    )  # fmt: skip
    embeddings = torch.empty(
        workload.batch_size,
        visual_tokens,
        llm_catalog.facts(workload.llm).hidden_size,
        device=META,
        dtype=torch_dtype(workload.dtype),
    )
    if "decode" not in workload.stages:
        return {"prefill": counted(embeddings, call=vlm.prefill)[0]}
    prefill, context = counted(embeddings, call=partial(prefill_cached, vlm))
    kv_cache_bytes = context.state_bytes()  # before the step, which extends the cache in place
    step, _ = counted(context.token, call=lambda _: decode_step(vlm, context), state=context.state_tensors)
    return {
        "prefill": replace(prefill, kv_cache_bytes=kv_cache_bytes),
        "decode": replace(step.repeated(workload.new_tokens), kv_cache_bytes=kv_cache_bytes),
    }


@lru_cache(maxsize=4)
def _language_model(
    llm: str, content: str, dtype: Dtype, precision: LLMPrecision, on_cpu: bool
) -> PreTrainedModel:
    model = build_llm(Workload("", llm, 0, 0, dtype=dtype), META)
    return model if precision == "as-dtype" else stand_in(model, precision, on_cpu)


def _attention(workload: Workload) -> Attention:
    return "math" if workload.attention == "math" else "fused"
