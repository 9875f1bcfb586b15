"""Sharing of LLM measurements between backbones with the same LLM input shape.

The work of the language model does not depend on the encoder: it is the same for the same LLM, dtype, batch
and token count. The first cell of each shape, the source row, is measured completely. Other cells are
measured up to the connector and copy their LLM stages from the source row, named in `llm_shared_from`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vlmprof.execution.ceilings import is_about_ceilings, with_ceilings
from vlmprof.measure.samples import Samples
from vlmprof.plan import Cell
from vlmprof.records import END_TO_END_PARTS, Row, Status
from vlmprof.settings import AxisValue, Settings
from vlmprof.units import show_bytes
from vlmprof.vlm.llm_catalog import facts

BEFORE_LLM = ("preprocess", "vision", "connector")
FROM_LLM = ("prefill", "decode")
_OF_THE_ENCODER = (
    "backbone", "resolution", "connector", "kernel_backend", "level", "levels", "tiling", "frames"
)  # fmt: skip
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class SharedLLM:
    """The rows whose LLM stages can be shared."""

    def __init__(self, enabled: bool, rows: Iterable[Row]) -> None:
        self._enabled = enabled
        self._source_rows: dict[Any, Row] = {}
        for row in rows:
            self.offer(row)

    def offer(self, row: Row) -> None:
        """Add a finished row, if it was measured completely."""
        if self._enabled and row.status is Status.OK and "prefill" in row.stages and not row.llm_shared_from:
            self._source_rows.setdefault(_shape(row.axes, row.visual_tokens, row.repeat), row)

    def source_row(self, cell: Cell) -> Row | None:
        """Return the row that `cell` can share; None if its shape has not been measured yet."""
        return self._source_rows.get(_shape(cell.axes.named, cell.visual_tokens, cell.repeat))


def omitted_llm_bytes(cell: Cell, settings: Settings, source_row: Row) -> int:
    """Return the bytes that the LLM would hold while `cell`, which shares it, encodes.

    These are its weights and, if outputs are kept, its previous output minus the embeddings that the cell
    keeps instead.
    """
    weight_bytes = source_row.stages["prefill"].weight_bytes or 0
    if settings.outputs != "kept":
        return weight_bytes
    llm, item_bytes = facts(cell.axes.llm), ITEM_BYTES[cell.axes.dtype]
    tokens, batch = cell.visual_tokens or 0, cell.axes.batch_size
    returned_bytes = source_row.cache_bytes
    if "decode" not in settings.stages or returned_bytes is None:
        positions = _positions_of_logits(tokens + settings.prompt_tokens, cell, settings)
        returned_bytes = batch * positions * llm.vocab_size * item_bytes
    embedded = llm.hidden_size if "connector" in settings.stages else 0
    return weight_bytes + max(returned_bytes - batch * tokens * embedded * item_bytes, 0)


def _positions_of_logits(positions: int, cell: Cell, settings: Settings) -> int:
    """Return how many positions prefill returns the logits of: with chunks, those of the last one."""
    if settings.logits == "last":
        return 1
    chunk = cell.axes.prefill_chunk
    return positions if chunk == "none" else (positions - 1) % chunk + 1


def without_llm(settings: Settings, room_bytes: int | None, omitted_bytes: int) -> Settings:
    """Return the settings of a cell that shares an LLM, limited to what the LLM leaves of `room_bytes`."""
    stages = tuple(stage for stage in settings.stages if stage in BEFORE_LLM)
    return replace(
        settings, stages=stages, memory_limit_bytes=room_bytes and max(room_bytes - omitted_bytes, 1)
    )


def complete(
    row: Row, samples: Samples, source_row: Row, source_samples: Samples, omitted_bytes: int
) -> tuple[Row, Samples]:
    """Add the LLM stages of `source_row` to the row and samples of a cell measured up to the connector.

    End-to-end latency and TTFT are the cell's own part plus the LLM part of the source row. Energy is
    unknown, because no counter covered both parts. Peaks are the larger of two: the encoder's peak plus the
    `omitted_bytes` of the LLM, and the source row's peak with this encoder's weights instead of its own.
    Warnings about the LLM stages of the source row are copied. A cell that ran out of memory reports how much
    of the LLM counted as resident.
    """
    if row.status is not Status.OK:
        llm = f" (with {show_bytes(omitted_bytes)} of the LLM resident)" if row.status is Status.OOM else ""
        return replace(row, message=f"{row.message or ''}{llm}" or None), samples
    # how much longer the encoder part takes than that of the source row
    longer_s = (row.end_to_end_s or 0.0) - sum(_device_s(source_row, stage) for stage in BEFORE_LLM)
    taken = {stage: source_row.stages[stage] for stage in FROM_LLM if stage in source_row.stages}
    own_weight_bytes, llm_weight_bytes = row.weight_bytes or 0, taken["prefill"].weight_bytes or 0
    exchanged_bytes = own_weight_bytes - ((source_row.weight_bytes or 0) - llm_weight_bytes)
    peaks = {
        name: _joint_peak(row, source_row, name, omitted_bytes, exchanged_bytes)
        for name in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_rss_bytes")
    }
    completed = replace(
        row,
        stages={**row.stages, **taken},
        end_to_end_s=(source_row.end_to_end_s or 0.0) + longer_s,
        weight_bytes=own_weight_bytes + llm_weight_bytes,
        cache_bytes=source_row.cache_bytes,
        ttft_s=None if source_row.ttft_s is None else source_row.ttft_s + longer_s,
        tpot_s=source_row.tpot_s,
        decode_tokens_per_s=source_row.decode_tokens_per_s,
        new_tokens=source_row.new_tokens,
        # the counter covered only the encoder
        energy_per_image_j=None,
        llm_shared_from=source_row.cell_id,
        warnings=(*row.warnings, *(f"shared LLM: {warning}" for warning in _llm_warnings(source_row))),
        **peaks,  # type: ignore[arg-type]
    )
    columns = [f"{clock}_{stage}_s" for clock in ("host", "gpu") for stage in taken]
    joint = Samples({name: values for name, values in samples.items() if name != "end_to_end_s"})
    if "end_to_end_s" in samples and "end_to_end_s" in source_samples:
        before, rest = END_TO_END_PARTS
        joint[before] = samples["end_to_end_s"]
        joint[rest] = _after_encoder_s(source_samples)
    joint.update({column: source_samples[column] for column in columns if column in source_samples})
    return with_ceilings(completed, {}), joint


def _after_encoder_s(source_samples: Samples) -> list[float]:
    """Return the seconds of each source iteration from the LLM on, by the GPU's clock if it has one."""
    clock = "gpu" if "gpu_prefill_s" in source_samples else "host"
    stages = [source_samples.get(f"{clock}_{stage}_s") for stage in BEFORE_LLM]
    columns = [stage for stage in stages if stage]
    whole = source_samples["end_to_end_s"]
    return [end_to_end_s - sum(parts) for end_to_end_s, *parts in zip(whole, *columns, strict=True)]


def _llm_warnings(source_row: Row) -> list[str]:
    """Return the warnings and disturbances of a source row, except those about latencies not shared and
    about ceilings, which are compared again."""
    found = []
    for warning in (*source_row.warnings, *source_row.disturbances):
        latencies = re.findall(r"\b(?:host|gpu)_\w+_s\b|\bend_to_end_s\b", warning)
        if is_about_ceilings(warning):
            continue
        if not latencies or any(stage in latency for latency in latencies for stage in FROM_LLM):
            found.append(warning)
    return found


def _shape(axes: Mapping[str, AxisValue], visual_tokens: int | None, repeat: int) -> tuple[Any, ...]:
    """Return what determines the LLM's work: the axes other than the encoder's, and its input tokens.

    Each repeat measures the LLM again.
    """
    # rows of versions without the axis have the first precision
    others = (
        item
        for item in axes.items()
        if item[0] not in _OF_THE_ENCODER and item != ("llm_precision", "as-dtype")
    )
    return (visual_tokens, repeat, *others)


def _device_s(row: Row, stage: str) -> float:
    figures = row.stages.get(stage)
    return 0.0 if figures is None else figures.gpu_s or figures.host_s or 0.0


def _joint_peak(row: Row, source_row: Row, name: str, omitted_bytes: int, exchanged_bytes: int) -> int | None:
    own, whole = getattr(row, name), getattr(source_row, name)
    if own is None or whole is None:
        return None
    return max(own + omitted_bytes, whole + exchanged_bytes)
