"""Choice of a configuration: cells within limits, the Pareto front, and the lever that each step along it
pulls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlmprof.analysis.costs import memory_needed, pixels_seen, time_to_first_token
from vlmprof.analysis.frames import numbers, varying_axes
from vlmprof.analysis.levers import Change, changes_between, levers_of
from vlmprof.analysis.scores import with_scores
from vlmprof.errors import UserError
from vlmprof.measure.statistics import Floats
from vlmprof.records import Status
from vlmprof.units import show_bytes, show_seconds

_WORKED_OUT = ("pixels", "memory_bytes", "cost_per_thousand_images", "fits", "on_front")
TOLERANCE = 0.05
"""Share by which a cost may be higher before it counts: larger than the noise of a run, and too small to
decide between backbones."""
_COSTS = {
    "ttft_s": "time to first token",
    "memory_bytes": "memory",
    "energy_per_image_j": "energy per image",
    "cost_per_thousand_images": "cost per 1,000 images",
}
_LLM_SIZE = "weight_prefill_bytes"
_DETAIL = {
    "visual_tokens": ("connector", "tiling"), "frames": ("frames",), _LLM_SIZE: ("llm", "llm_precision"),
}  # fmt: skip
"""What counts as better beside a larger image, without scores, where one of these axes varies: what the LLM
is given, and the size of the LLM."""


@dataclass(frozen=True)
class Limits:
    """The limits of a deployment. None means no limit."""

    memory_bytes: float | None = None
    ttft_s: float | None = None
    energy_per_image_j: float | None = None
    cost_per_thousand_images: float | None = None

    def of(self, cost: str) -> float | None:
        """Return the limit of a column of costs."""
        limit: float | None = getattr(self, cost)
        return limit


@dataclass(frozen=True)
class Advice:
    """The cells of a run, their costs, and which of them are worth choosing."""

    candidates: pd.DataFrame
    """The `ok` rows with `pixels` (those that the encoder sees), `ttft_s`, `memory_bytes` and, where known,
    `energy_per_image_j`, `cost_per_thousand_images` and the score columns. `fits` marks the cells within the
    limits, and `on_front` those on the Pareto front among them."""
    quality: str
    """The column to maximize: a score, or `pixels`."""
    detail: Sequence[str]
    """Further columns of which more counts as better, without a score."""
    costs: Sequence[str]
    """The columns to minimize."""
    scores: Sequence[str]
    tolerance: float
    """Share by which costs, and image sizes, may differ and still count as equal."""
    correlation: pd.DataFrame | None
    """Spearman's rank correlation of scores and costs over the scored cells; None for fewer than 3 cells."""
    remarks: Sequence[str] = ()
    """What the scores' table matched several times or not at all, and which limits leave out cells whose cost
    is unknown."""
    estimated_for: str | None = None
    """The device that the rows are estimated for; None if they were measured."""

    @property
    def cells(self) -> pd.DataFrame:
        """The candidates as rows of a run, without the derived columns."""
        return self.candidates.drop(columns=[*_WORKED_OUT, *self.scores], errors="ignore")

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The Pareto front, best quality first, and the fastest first for equal quality. Without scores, the
        cells with the largest LLM come first."""
        front = self.candidates[self.candidates["on_front"]]
        by = [*self._llm_size, self.quality, *(d for d in self.detail if d != _LLM_SIZE), "ttft_s"]
        return front.sort_values(by, ascending=[column == "ttft_s" for column in by])

    @property
    def shown_quality(self) -> str:
        """The column to draw costs against: of equal images, more visual tokens or frames are better."""
        if "visual_tokens" in self.detail:
            return "visual_tokens"
        one_size = "frames" in self.detail and self.candidates["pixels"].nunique() == 1
        return "frames" if one_size else self.quality

    @property
    def joined_by(self) -> list[str]:
        """What counts as better and is not drawn: of the image, the frames and the size of the LLM."""
        return [column for column in (self.quality, *self.detail) if column != self.shown_quality]

    @property
    def curves(self) -> list[list[int]]:
        """Positions within `chosen` of the cells to join, equal in `joined_by`."""
        return _groups(self.chosen, self.joined_by)

    def envelopes(self, cost: str) -> list[list[int]]:
        """Positions within `chosen`, for each size of the LLM, of the cells whose shown quality no cell of a
        lower `cost` reaches, best first."""
        found = []
        for own in _groups(self.chosen, self._llm_size):
            rows = self.chosen.iloc[own]
            shown, costs = numbers(rows, self.shown_quality), numbers(rows, cost)
            reached, envelope = -np.inf, []
            for i in np.lexsort((-shown, costs)).tolist():
                if shown[i] > reached:
                    reached = shown[i]
                    envelope.append(own[i])
            found.append(envelope[::-1])
        return found

    @cached_property
    def levers(self) -> list[list[Change]]:
        """What changes from the next cell of `chosen` to each: the levers that a step up the front pulls.

        Empty for the last cell with each size of the LLM, which has no next one.
        """
        last = {own[-1] for own in _groups(self.chosen, self._llm_size)}
        return [[] if i in last else self.step(i + 1, i) for i in range(len(self.chosen))]

    def step(self, before: int, after: int) -> list[Change]:
        """Return what changes between the cells at two positions within `chosen`."""
        places = self.chosen.index.tolist()
        return changes_between(self.candidates, places[before], places[after], levers_of(self.cells))

    @property
    def _llm_size(self) -> list[str]:
        return [_LLM_SIZE] if _LLM_SIZE in self.detail else []

    @property
    def nearest_miss(self) -> str:
        """The message for when no cell is within the limits: the lowest requirements of any cell."""
        shown: dict[str, tuple[str, Callable[[float], str]]] = {
            "memory_bytes": ("lowest memory of any cell", show_bytes),
            "ttft_s": ("shortest time to first token", show_seconds),
            "energy_per_image_j": ("lowest energy per image", "{:.3g} J".format),
            "cost_per_thousand_images": ("lowest cost per 1,000 images", "{:.3g}".format),
        }
        words = [
            f"the {title} is {show(float(np.nanmin(numbers(self.candidates, cost))))}"
            for cost, (title, show) in shown.items()
            if cost in self.costs
        ]
        kind = "measured" if self.estimated_for is None else "estimated"
        return f"no {kind} cell is within the limits; {', '.join(words)}"


def advise(
    frame: pd.DataFrame,
    limits: Limits,
    *,
    scores: pd.DataFrame | None = None,
    score: str | None = None,
    price_per_hour: float | None = None,
    tolerance: float = TOLERANCE,
    estimated_for: str | None = None,
) -> Advice:
    """Choose among the `ok` cells of a run.

    Args:
        frame: the rows of a run.
        limits: limits on time to first token, memory, energy and price.
        scores: quality by axis values, from `load_scores`; cells without a score are left out. Without
            scores, a larger image counts as better, and so do more visual tokens, more frames and a larger
            LLM where the run varies them.
        score: the score to maximize; by default the overall one, or else the last.
        price_per_hour: price of the device in any currency, for the cost per thousand images.
        tolerance: share by which costs, and image sizes, may differ and still count as equal.
        estimated_for: the device, if the rows are estimates.

    Raises `UserError` if no cell is `ok`, no measured cell has a score, `score` is unknown, or a limit is on
    something that the run does not have.
    """
    candidates = _candidates(frame, price_per_hour)
    names: list[str] = []
    remarks: list[str] = []
    quality, detail = "pixels", _details(candidates)
    if scores is not None:
        scored = with_scores(candidates, scores, levers_of(candidates), score)
        candidates, names = scored.cells, [*scored.names]
        remarks += [f"scores: {remark}" for remark in scored.remarks]
        quality, detail = scored.quality, []
    costs = [column for column in _COSTS if column in candidates and candidates[column].notna().any()]
    fits = np.ones(len(candidates), dtype=bool)
    for cost in _COSTS:
        if (limit := limits.of(cost)) is not None:
            if cost not in costs:
                raise UserError(f"there is no {_COSTS[cost]} to limit: no cell of this run has it")
            values = numbers(candidates, cost)
            fits &= values <= limit
            if unknown := int(np.isnan(values).sum()):
                remarks.append(f"{unknown} of {len(values)} cells have no {_COSTS[cost]} and are left out")
    # energy that is missing for some cells cannot rank them; cells that share an LLM have none
    essential = [c for c in costs if c in ("ttft_s", "memory_bytes")]
    complete = [c for c in costs if c == "energy_per_image_j" and candidates[c].notna().all()]
    ranked = fits & candidates[essential].notna().all(axis=1).to_numpy()
    on_front = np.zeros(len(candidates), dtype=bool)
    table, best = [numbers(candidates, c) for c in (*essential, *complete)], numbers(candidates, quality)
    if quality == "pixels":  # 322 and 320 pixels count as equal too, while scores have no common scale
        better = [1 / best, *(1 / numbers(candidates, column) for column in detail)]
        table, best = [*table, *better], np.ones(len(candidates))
    stacked = np.array(table).reshape(len(table), len(candidates)).T
    on_front[ranked] = pareto_front(stacked[ranked], best[ranked], tolerance)
    on_front &= _simplest(candidates, np.column_stack((stacked, best)))
    marked = candidates.assign(fits=fits, on_front=on_front)
    correlation = None
    if names and len(marked) >= 3:
        correlation = marked[[*names, *costs]].astype(float).corr(method="spearman")
    return Advice(marked, quality, detail, costs, names, tolerance, correlation, remarks, estimated_for)


def _groups(rows: pd.DataFrame, columns: Sequence[str]) -> list[list[int]]:
    """Return the positions of the rows with equal values in these columns, in the order of the rows."""
    groups: dict[tuple[object, ...], list[int]] = {}
    keys = zip(*(rows[column] for column in columns), strict=True) if columns else [()] * len(rows)
    for i, key in enumerate(keys):
        groups.setdefault(tuple(key), []).append(i)
    return list(groups.values())


def _simplest(candidates: pd.DataFrame, values: Floats) -> npt.NDArray[np.bool_]:
    """Return a mask without the cells that equal another in costs and quality: of a larger photo whose tiles
    hold no more, or without the one tile that is the photo."""
    others = [axis for axis in levers_of(candidates) if axis not in ("resolution", "tiling")]
    sizes = numbers(candidates, "height_px") * numbers(candidates, "width_px")
    first: dict[tuple[object, ...], int] = {}
    for i in np.argsort(-sizes, kind="stable").tolist():
        first.setdefault((*candidates.loc[i, others].map(str), *values[i].tolist()), i)
    return np.isin(np.arange(len(candidates)), list(first.values()))


def _details(candidates: pd.DataFrame) -> list[str]:
    """Return the columns of which more counts as better, of those that the run varies and has everywhere."""
    varied = varying_axes(candidates)
    return [
        column
        for column, axes in _DETAIL.items()
        if any(axis in varied for axis in axes) and (numbers(candidates, column) > 0).all()
    ]


def pareto_front(
    costs: Floats, quality: Floats | None = None, tolerance: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Return a mask of the points, shape (points, costs), that no other point of the mask dominates.

    A point dominates another if neither its quality, shape (points,), is lower nor any cost higher, and at
    least one of them is better. Costs that differ by a share of at most `tolerance` count as equal; as this
    is not transitive, a point may then stay although one with higher costs in all dominates it. NaN counts as
    the highest cost.
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


def _candidates(frame: pd.DataFrame, price_per_hour: float | None) -> pd.DataFrame:
    rows = frame[frame["status"] == Status.OK].reset_index(drop=True)
    if rows.empty:
        raise UserError("nothing to recommend: no cell of this run has status ok")
    added: dict[str, Floats] = {
        "pixels": pixels_seen(rows),
        "ttft_s": time_to_first_token(rows),
        "memory_bytes": memory_needed(rows),
    }
    if price_per_hour is not None:
        batch = np.nan_to_num(numbers(rows, "batch_size"), nan=1.0)
        hours_per_image = numbers(rows, "end_to_end_s") / batch / 3600
        added["cost_per_thousand_images"] = 1000 * price_per_hour * hours_per_image
    return rows.assign(**added)
