"""Choice of backbone and resolution: cells within limits, the Pareto front, scores and costs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.frames import numbers
from vlmprof.analysis.reference import study_scores
from vlmprof.errors import UserError, first_line, unknown
from vlmprof.files import read_bytes
from vlmprof.records import Status
from vlmprof.units import show_bytes, show_seconds

STUDY = "kuo2026"
"""The name of the study whose released scores are shipped."""

_NO_SCORES = frozenset({"visual_tokens", "parameters_million"})
_WORKED_OUT = ("pixels", "memory_bytes", "cost_per_thousand_images", "fits", "on_front")
TOLERANCE = 0.05
"""Share by which a cost may be higher before it counts: larger than the noise of a run, and too small to
decide between backbones."""
_GPU_MEMORY = ("nvml_process_bytes", "peak_reserved_bytes", "peak_allocated_bytes")


@dataclass(frozen=True)
class Limits:
    """The limits of a deployment. None means no limit."""

    memory_bytes: int | None = None
    ttft_s: float | None = None


@dataclass(frozen=True)
class Advice:
    """The measured cells, their costs, and which of them are worth choosing."""

    candidates: pd.DataFrame
    """The `ok` rows with `pixels`, `ttft_s`, `memory_bytes` and, where known, `energy_per_image_j`,
    `cost_per_thousand_images` and the score columns. `fits` marks the cells within the limits, and
    `on_front` those on the Pareto front among them."""
    quality: str
    """The column to maximize: a score, or `pixels`."""
    costs: Sequence[str]
    """The columns to minimize."""
    scores: Sequence[str]
    tolerance: float
    """Share by which costs, and image sizes, may differ and still count as equal."""
    correlation: pd.DataFrame | None
    """Spearman's rank correlation of scores and costs over the scored cells; None for fewer than 3 cells."""

    @property
    def cells(self) -> pd.DataFrame:
        """The candidates as rows of a run, without the derived columns."""
        return self.candidates.drop(columns=[*_WORKED_OUT, *self.scores], errors="ignore")

    @property
    def chosen(self) -> pd.DataFrame:
        """The Pareto front, best quality first, and the fastest first for equal quality."""
        front = self.candidates[self.candidates["on_front"]]
        return front.sort_values([self.quality, "ttft_s"], ascending=[False, True])

    @property
    def nearest_miss(self) -> str:
        """The message for when no cell is within the limits: the lowest requirements of any cell."""
        least_memory = show_bytes(float(self.candidates["memory_bytes"].min()))
        least_ttft = show_seconds(float(self.candidates["ttft_s"].min()))
        return (
            f"no measured cell is within the limits; the lowest memory of any cell is {least_memory}, "
            f"the shortest time to first token is {least_ttft}"
        )


def advise(
    frame: pd.DataFrame,
    limits: Limits,
    *,
    scores: pd.DataFrame | None = None,
    score: str | None = None,
    price_per_hour: float | None = None,
    tolerance: float = TOLERANCE,
) -> Advice:
    """Choose among the `ok` cells of a run.

    Args:
        frame: the rows of a run.
        limits: limits on memory and time to first token.
        scores: quality of (backbone, resolution) pairs, from `load_scores`; cells without a score are left
            out. Without scores, a larger image counts as better.
        score: the score to maximize; by default the overall one, or else the last.
        price_per_hour: price of the device in any currency, for the cost per thousand images.
        tolerance: share by which costs, and image sizes, may differ and still count as equal.

    Raises `UserError` if no cell is `ok`, no measured cell has a score, or `score` is unknown.
    """
    candidates = _candidates(frame, price_per_hour)
    names: list[str] = []
    quality = "pixels"
    if scores is not None:
        names = score_columns(scores)
        quality = _pick_score(names, score)
        candidates = _with_scores(candidates, scores, names)
    costs = [
        column
        for column in ("ttft_s", "memory_bytes", "energy_per_image_j", "cost_per_thousand_images")
        if column in candidates and candidates[column].notna().any()
    ]
    fits = np.ones(len(candidates), dtype=bool)
    if limits.memory_bytes is not None:
        fits &= (candidates["memory_bytes"] <= limits.memory_bytes).to_numpy()
    if limits.ttft_s is not None:
        fits &= (candidates["ttft_s"] <= limits.ttft_s).to_numpy()
    # energy that is missing for some cells cannot rank them; cells that share an LLM have none
    essential = [c for c in costs if c in ("ttft_s", "memory_bytes")]
    complete = [c for c in costs if c == "energy_per_image_j" and candidates[c].notna().all()]
    ranked = fits & candidates[essential].notna().all(axis=1).to_numpy()
    on_front = np.zeros(len(candidates), dtype=bool)
    table, best = [numbers(candidates, c) for c in (*essential, *complete)], numbers(candidates, quality)
    if quality == "pixels":  # 322 and 320 pixels count as equal too, while scores have no common scale
        table, best = [*table, 1 / best], np.ones(len(candidates))
    stacked = np.array(table).reshape(len(table), len(candidates)).T
    on_front[ranked] = pareto_front(stacked[ranked], best[ranked], tolerance)
    marked = candidates.assign(fits=fits, on_front=on_front)
    correlation = None
    if names and len(marked) >= 3:
        correlation = marked[[*names, *costs]].astype(float).corr(method="spearman")
    return Advice(marked, quality, costs, names, tolerance, correlation)


def pareto_front(
    costs: npt.NDArray[np.float64], quality: npt.NDArray[np.float64] | None = None, tolerance: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Return a mask of the points, shape (points, costs), that no other point of the mask dominates.

    A point dominates another if neither its quality, shape (points,), is lower nor any cost higher, and at
    least one of them is better. Costs that differ by a share of at most `tolerance` count as equal. NaN
    counts as the highest cost.
    """
    known = np.where(np.isnan(costs), np.inf, costs)
    height = np.zeros(len(known)) if quality is None else quality
    # dominating points first; with a tolerance, three points may each dominate the next
    order = np.lexsort((np.log(np.maximum(known, 1e-300)).sum(axis=1), -height))
    front: list[int] = []
    for i in order.tolist():
        rivals, enough = known[front], known[i] * (1 + tolerance)
        no_worse = (rivals <= enough).all(axis=1) & (height[front] >= height[i])
        better = (rivals * (1 + tolerance) < known[i]).any(axis=1) | (height[front] > height[i])
        if not (no_worse & better).any():
            front.append(i)
    return np.isin(np.arange(len(known)), front)


def load_scores(source: str | Path) -> pd.DataFrame:
    """Load scores by `backbone` and `resolution` from a CSV file, or the study's by the name `kuo2026`.

    Raises `UserError` if the file cannot be read or lacks those columns or a score.
    """
    if str(source) == STUDY:
        return study_scores()
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(Path(source))), dtype={"resolution": str})
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or first_line(str(problem))
        raise UserError(f"scores {source} cannot be read: {reason}; pass a CSV file or {STUDY}") from None
    missing = {"backbone", "resolution"} - set(table.columns)
    if missing or not score_columns(table):
        lacks = ", ".join(sorted(missing)) or "numeric column"
        raise UserError(f"scores {source} has no {lacks}; write a header like backbone,resolution,accuracy")
    return table


def score_columns(scores: pd.DataFrame) -> list[str]:
    """Return the columns of a table that are scores: all numeric columns except sizes and counts."""
    numeric = scores.select_dtypes("number").columns
    return [str(column) for column in numeric if column not in _NO_SCORES | {"resolution"}]


def _pick_score(names: Sequence[str], wanted: str | None) -> str:
    if wanted is None:
        return next((name for name in names if "overall" in name), names[-1])
    if wanted not in names:
        raise unknown("score", wanted, names)
    return wanted


def _candidates(frame: pd.DataFrame, price_per_hour: float | None) -> pd.DataFrame:
    rows = frame[frame["status"] == Status.OK].reset_index(drop=True)
    if rows.empty:
        raise UserError("nothing to recommend: no cell of this run has status ok")
    batch = np.nan_to_num(numbers(rows, "batch_size"), nan=1.0)
    added: dict[str, npt.NDArray[np.float64]] = {
        "pixels": numbers(rows, "height_px") * numbers(rows, "width_px"),
        "ttft_s": time_to_first_token(rows),
        "memory_bytes": memory_needed(rows),
    }
    if price_per_hour is not None:
        images_per_hour = 3600 * batch / numbers(rows, "end_to_end_s")
        added["cost_per_thousand_images"] = 1000 * price_per_hour / images_per_hour
    return rows.assign(**added)


def time_to_first_token(rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return each row's time to first token in seconds: `ttft_s`, or end-to-end latency without decoding."""
    ttft = numbers(rows, "ttft_s")
    nothing_decoded = np.isnan(numbers(rows, "host_decode_s"))
    return np.where(np.isnan(ttft) & nothing_decoded, numbers(rows, "end_to_end_s"), ttft)


def memory_needed(rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return each row's memory in bytes: the largest of the GPU's figures, or peak resident size on a CPU."""
    gpu = np.column_stack([numbers(rows, column) for column in _GPU_MEMORY])
    largest = np.where(np.isnan(gpu), -np.inf, gpu).max(axis=1)
    return np.where(np.isfinite(largest), largest, numbers(rows, "peak_rss_bytes"))


def _with_scores(candidates: pd.DataFrame, scores: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    keyed = scores.assign(resolution=scores["resolution"].astype(str)).drop_duplicates(
        ["backbone", "resolution"]
    )
    joined = candidates.assign(resolution=candidates["resolution"].astype(str)).merge(
        keyed[["backbone", "resolution", *names]], on=["backbone", "resolution"], how="inner"
    )
    if joined.empty:
        scored = _pairs(keyed)
        raise UserError(f"no measured cell has a score; there are scores for {scored}")
    return joined


def _pairs(table: pd.DataFrame) -> str:
    pairs = [f"{b} at {r}" for b, r in zip(table["backbone"], table["resolution"], strict=True)]
    return ", ".join(pairs[:10]) + (f" and {len(pairs) - 10} more" if len(pairs) > 10 else "")
