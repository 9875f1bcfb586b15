"""Measuring the LLM once for all backbones that hand it the same shape.

The language model does not know which encoder its tokens came from: with the same LLM, dtype, batch and
token count it does the same work. The first cell of a shape is measured whole; the others are measured up
to the connector, and their rows are completed from the first, which they name in `llm_shared_from`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vlmprof.plan import Cell
from vlmprof.records import END_TO_END_PARTS, Row, Status
from vlmprof.settings import AxisValue, Settings
from vlmprof.store import Samples
from vlmprof.units import show_bytes
from vlmprof.vlm.llm_catalog import facts

BEFORE_LLM = ("preprocess", "vision", "connector")
FROM_LLM = ("prefill", "decode")
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class SharedLLM:
    """The rows whose LLM stages others may take over."""

    def __init__(self, enabled: bool, rows: Iterable[Row]) -> None:
        self._enabled = enabled
        self._donors: dict[Any, Row] = {}
        for row in rows:
            self.offer(row)

    def offer(self, row: Row) -> None:
        """Take note of a finished row; only whole ones lend."""
        if self._enabled and row.status is Status.OK and "prefill" in row.stages and not row.llm_shared_from:
            self._donors.setdefault(_shape(row.axes, row.visual_tokens), row)

    def donor(self, cell: Cell) -> Row | None:
        """The row that a cell may take its LLM stages from, if its shape was measured before."""
        return self._donors.get(_shape(cell.axes.named, cell.visual_tokens))


def absent_bytes(cell: Cell, settings: Settings, donor: Row) -> int:
    """What the LLM would hold while a cell that takes its stages over encodes: its weights and, where outputs
    are kept, what it returned before, beyond the embeddings that the cell keeps in that place."""
    weight_bytes = donor.stages["prefill"].weight_bytes or 0
    if settings.outputs != "kept":
        return weight_bytes
    llm, item_bytes = facts(cell.axes.llm), ITEM_BYTES[cell.axes.dtype]
    tokens, batch = cell.visual_tokens or 0, cell.axes.batch_size
    returned_bytes = donor.cache_bytes
    if "decode" not in settings.stages or returned_bytes is None:
        positions = tokens + settings.prompt_tokens if settings.logits == "all" else 1
        returned_bytes = batch * positions * llm.vocab_size * item_bytes
    embedded = llm.hidden_size if "connector" in settings.stages else 0
    return weight_bytes + max(returned_bytes - batch * tokens * embedded * item_bytes, 0)


def without_llm(settings: Settings, room_bytes: int | None, absent: int) -> Settings:
    """The settings of a cell that takes its LLM stages over: of `room_bytes` it gets what the LLM leaves."""
    stages = tuple(stage for stage in settings.stages if stage in BEFORE_LLM)
    return replace(settings, stages=stages, memory_limit_bytes=room_bytes and max(room_bytes - absent, 1))


def complete(
    row: Row, samples: Samples, donor: Row, donor_samples: Samples, absent: int
) -> tuple[Row, Samples]:
    """The row and samples of a cell measured up to the connector, with the donor's LLM stages.

    End-to-end and TTFT are the cell's own part plus the donor's time beyond its own such part. Energy is not
    known, for no counter ran through both. What was odd about the donor is said. Peaks are what the
    two measurements say once what the other cell did not have is exchanged: while encoding, the LLM's
    `absent_bytes` lie beside; while the LLM runs, the encoder's own weights do. A cell that ran out of
    memory says what lay beside it.
    """
    if row.status is not Status.OK:
        beside = f" (beside {show_bytes(absent)} of the LLM)" if row.status is Status.OOM else ""
        return replace(row, message=f"{row.message or ''}{beside}" or None), samples
    # what the encoder's part takes longer than the donor's
    longer_s = (row.end_to_end_s or 0.0) - sum(_device_s(donor, stage) for stage in BEFORE_LLM)
    taken = {stage: donor.stages[stage] for stage in FROM_LLM if stage in donor.stages}
    own_weight_bytes, llm_weight_bytes = row.weight_bytes or 0, taken["prefill"].weight_bytes or 0
    exchanged_bytes = own_weight_bytes - ((donor.weight_bytes or 0) - llm_weight_bytes)
    peaks = {
        name: _exchanged(row, donor, name, absent, exchanged_bytes)
        for name in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes")
    }
    completed = replace(
        row,
        stages={**row.stages, **taken},
        end_to_end_s=(donor.end_to_end_s or 0.0) + longer_s,
        weight_bytes=own_weight_bytes + llm_weight_bytes,
        cache_bytes=donor.cache_bytes,
        ttft_s=None if donor.ttft_s is None else donor.ttft_s + longer_s,
        tpot_s=donor.tpot_s,
        decode_tokens_per_s=donor.decode_tokens_per_s,
        new_tokens=donor.new_tokens,
        # the counter saw the encoder alone
        energy_per_image_j=None,
        llm_shared_from=donor.cell_id,
        warnings=(*row.warnings, *(f"its LLM's cell: {said}" for said in _said_of_llm(donor))),
        **peaks,  # type: ignore[arg-type]
    )
    columns = [f"{clock}_{stage}_s" for clock in ("host", "gpu") for stage in taken]
    shared = {column: donor_samples[column] for column in columns if column in donor_samples}
    own = {name: values for name, values in samples.items() if name != "end_to_end_s"}
    if "end_to_end_s" in samples and "end_to_end_s" in donor_samples:
        before, rest = END_TO_END_PARTS
        own[before] = samples["end_to_end_s"]
        own[rest] = _beyond_the_encoder(donor_samples)
    return completed, {**own, **shared}


def _beyond_the_encoder(donor_samples: Samples) -> list[float]:
    """What each of the donor's iterations took beyond its stages before the LLM, by the device's clock."""
    clock = "gpu" if "gpu_prefill_s" in donor_samples else "host"
    stages = [donor_samples.get(f"{clock}_{stage}_s") for stage in BEFORE_LLM]
    columns = [stage for stage in stages if stage]
    whole = donor_samples["end_to_end_s"]
    return [end_to_end_s - sum(parts) for end_to_end_s, *parts in zip(whole, *columns, strict=True)]


def _said_of_llm(donor: Row) -> list[str]:
    """What is odd about the donor, but for what only concerns latencies that nobody takes over."""
    said = []
    for words in (*donor.warnings, *donor.disturbances):
        latencies = re.findall(r"\b(?:host|gpu)_\w+_s\b|\bend_to_end_s\b", words)
        if not latencies or any(stage in latency for latency in latencies for stage in FROM_LLM):
            said.append(words)
    return said


def _shape(axes: Mapping[str, AxisValue], visual_tokens: int | None) -> tuple[Any, ...]:
    """What decides the LLM's work: every axis that is not the encoder's, and the tokens it gets."""
    others = (
        item
        for item in axes.items()
        if item[0] not in ("backbone", "resolution", "connector", "kernel_backend", "level", "levels")
    )
    return (visual_tokens, *others)


def _device_s(row: Row, stage: str) -> float:
    figures = row.stages.get(stage)
    return 0.0 if figures is None else figures.gpu_s or figures.host_s or 0.0


def _exchanged(row: Row, donor: Row, name: str, absent: int, exchanged_bytes: int) -> int | None:
    own, whole = getattr(row, name), getattr(donor, name)
    if own is None or whole is None:
        return None
    return max(own + absent, whole + exchanged_bytes)
