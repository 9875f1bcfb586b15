"""What a cell costs a deployment, from its row: time to first token, memory, price."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlmprof.analysis.frames import numbers
from vlmprof.measure.statistics import Floats

_GPU_MEMORY = ("nvml_process_bytes", "peak_reserved_bytes", "peak_allocated_bytes")


def pixels_seen(rows: pd.DataFrame) -> Floats:
    """Return how many pixels of its image each row's encoder sees: all of them, or as many as fit in its
    tiles, without the thumbnail."""
    pixels = numbers(rows, "height_px") * numbers(rows, "width_px")
    sides = rows["tiling"].astype(str).str.extract(r"-(\d+)-\d+$")[0] if "tiling" in rows else None
    if sides is None:
        return pixels
    tiles = np.maximum(numbers(rows, "tiles") - 1, 1)
    return np.fmin(pixels, tiles * sides.astype(float).to_numpy() ** 2)


def time_to_first_token(rows: pd.DataFrame) -> Floats:
    """Return each row's time to first token in seconds: `ttft_s`, or end-to-end latency without decoding."""
    ttft = numbers(rows, "ttft_s")
    nothing_decoded = np.isnan(numbers(rows, "host_decode_s"))
    return np.where(np.isnan(ttft) & nothing_decoded, numbers(rows, "end_to_end_s"), ttft)


def memory_needed(rows: pd.DataFrame) -> Floats:
    """Return each row's memory in bytes: the largest of the GPU's figures, or peak resident size on a CPU.

    The driver's figure is left out of a run whose cells share an LLM: only the cells that measured the LLM
    held it, while the allocator's figures include it in all.
    """
    shares = "llm_shared_from" in rows and rows["llm_shared_from"].notna().any()
    gpu = np.column_stack([numbers(rows, column) for column in _GPU_MEMORY[1 if shares else 0 :]])
    largest = np.where(np.isnan(gpu), -np.inf, gpu).max(axis=1)
    return np.where(np.isfinite(largest), largest, numbers(rows, "peak_rss_bytes"))
