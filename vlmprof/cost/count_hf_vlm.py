"""The counted cost of a VLM of transformers: one forward pass on `meta`, cut where stages begin and end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vlmprof.cost.costs import CellCost, OpCost, StageCost, unread_bytes
from vlmprof.cost.dispatch_counter import Attention, CostCounter, routed_if_read
from vlmprof.cost.formulas import tensors_in
from vlmprof.cost.liveness import in_blocks, module_tensors
from vlmprof.errors import UserError, message_of
from vlmprof.settings import Axes, Settings
from vlmprof.vlm.attention import check_attention
from vlmprof.vlm.decoding import Context, decode_step
from vlmprof.vlm.hf_vlm.dry_run import DryRun, dry_run
from vlmprof.vlm.hf_vlm.model import HfVLM

OTHER = "other"
"""What runs between the stages: packing tiles, merging embeddings."""
_COUNTED: WeakKeyDictionary[HfVLM, dict[Any, CellCost]] = WeakKeyDictionary()
"""By model, and by what its forward pass can see. An entry lives as long as its model."""


def count_hf_vlm(name: str, axes: Axes, settings: Settings, size: tuple[int, int]) -> CellCost:
    """The cost of one iteration on images of `size` (height, width) in pixels.

    What runs between the stages is counted as `other`; its memory is in the stage before it. `preprocess` is
    not counted. Raises `UserError` for a VLM that cannot be built or counted, and for a size that it does not
    accept.
    """
    run = dry_run(name, size, axes, settings)
    check_attention(name, run.vlm.model, axes.attention)
    counted = _COUNTED.setdefault(run.vlm, {})
    new_tokens = settings.new_tokens if "decode" in settings.stages else 0
    key = run.key(), axes.attention, settings.outputs, new_tokens
    try:
        if key not in counted:
            counted[key] = routed_if_read(
                run.vlm.model, lambda routes: _counted(run, axes, settings, new_tokens, routes)
            )
    except UserError:
        raise
    except Exception as problem:  # what a model of transformers raises is its own affair
        raise UserError(f"vlm {name!r}: its cost cannot be counted ({message_of(problem)})") from problem
    return counted[key]


@dataclass
class _Cuts:
    """The operations and the peak memory of each stage of one pass."""

    counter: CostCounter
    stages: tuple[str, ...]
    ops: dict[str, Counter[OpCost]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    at: str = OTHER
    last: str = ""

    def begin(self, stage: str) -> None:
        self._cut()
        self.at = self.last = stage

    def end(self, stage: str) -> None:
        self._cut()
        self.at = OTHER

    def _cut(self) -> None:
        ops, peak_bytes = self.counter.cut()
        self.ops.setdefault(self.at, Counter()).update(ops)
        held_by = self.last or self.stages[0]
        self.peaks[held_by] = max(self.peaks.get(held_by, 0), peak_bytes)


def _counted(run: DryRun, axes: Axes, settings: Settings, new_tokens: int, routes: bool) -> CellCost:
    attention: Attention = "math" if axes.attention == "math" else "fused"
    with torch.inference_mode(), CostCounter(attention=attention, routes=routes) as counter, run.values:
        counter.memory.hold(module_tensors(run.vlm.model))
        resident_bytes = counter.memory.live_bytes
        given = tensors_in(run.inputs)
        counter.memory.hold(given)
        cuts = _Cuts(counter, run.parts.stages)
        handles = run.vlm.mark_stages(cuts.begin, cuts.end, run.parts)
        try:
            output = (run.vlm.prefill_cached if new_tokens else run.vlm.forward)(run.inputs)
        finally:
            for handle in handles:
                handle.remove()
        cuts.end("")
        cache_bytes = output.state_bytes() if isinstance(output, Context) else 0
        if isinstance(output, Context):
            cuts.begin("decode")
            decode_step(run.vlm, output)
            cuts.end("decode")
    weights = run.vlm.stage_tensors(run.parts)
    resident = {stage: sum(in_blocks(_bytes([t])) for t in tensors) for stage, tensors in weights.items()}
    last = run.parts.stages[-1]
    resident[last] = resident_bytes - sum(size for stage, size in resident.items() if stage != last)
    costs = {}
    for stage in (*run.parts.stages, OTHER, *(("decode",) if new_tokens else ())):
        ops = cuts.ops.get(stage, Counter())
        part = last if stage == "decode" else stage
        costs[stage] = StageCost(
            ops=ops,
            unread_weight_bytes=unread_bytes(ops),
            weight_bytes=_bytes(weights.get(part, [])),
            resident_bytes=resident.get(part, 0),
            input_bytes=_bytes(given) if stage == "vision" else 0,
            output_bytes=_bytes(tensors_in(output)) if stage == last else 0,
            peak_activation_bytes=max(0, cuts.peaks.get(stage, 0) - resident_bytes),
            kv_cache_bytes=cache_bytes if part == last else 0,
        )
    if new_tokens:
        costs["decode"] = costs["decode"].repeated(new_tokens)
    kept_bytes = in_blocks(cache_bytes or _bytes(tensors_in(output))) if settings.outputs == "kept" else 0
    return CellCost(
        costs, run.visual_tokens, held_bytes=dict.fromkeys((*run.parts.stages, "decode"), kept_bytes)
    )


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
