"""Ceilings of a run: the best that its device reached before and after the cells, and rows above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vlmprof.records import Row, Status

AGAIN_AFTER_S = 20.0
"""Duration of a sweep after which its ceilings are measured again, because other load may have changed."""
CHANGED_SHARE = 0.01
"""Smallest share by which a ceiling has to rise to replace the first one."""

Ceilings = Mapping[str, Mapping[str, float]]
"""Rates by dtype and row column."""

_ABOVE = "of the ceiling of a matrix product, which other load may have lowered when it was measured"


def best_of(first: Ceilings, again: Ceilings) -> Ceilings:
    """Return the higher rates of two measurements; a dtype whose rates are about the same keeps its first."""
    best = dict(first)
    for dtype, rates in first.items():
        others = again.get(dtype, {})
        if any(others.get(name, 0.0) > rate * (1 + CHANGED_SHARE) for name, rate in rates.items()):
            best[dtype] = {name: max(rate, others.get(name, rate)) for name, rate in rates.items()}
    return best


def with_ceilings(row: Row, ceilings: Ceilings) -> Row:
    """Return a row with the ceilings of its dtype, and a warning for each stage that exceeds them."""
    rates: dict[str, Any] = dict(ceilings.get(str(row.axes.get("dtype")), {}))
    row = replace(row, **rates)
    others = tuple(words for words in row.warnings if not is_about_ceilings(words))
    return replace(row, warnings=(*others, *_excesses(row)))


def is_about_ceilings(warning: str) -> bool:
    """Return whether a warning of a row comes from `with_ceilings`."""
    return warning.endswith(_ABOVE)


def _excesses(row: Row) -> list[str]:
    """Describe the stages whose rate is above the ceiling. Bytes may be: caches serve them faster than memory
    copies."""
    ceiling = row.matmul_ceiling_flops_per_s
    if row.status is not Status.OK or not ceiling:
        return []
    # products of int8 and float8 have ceilings of their own
    others = ("prefill", "decode") if row.axes.get("llm_precision") in ("int8-dynamic", "fp8") else ()
    shares = {
        stage: (found.achieved_flops_per_s or 0.0) / ceiling
        for stage, found in row.stages.items()
        if stage not in others
    }
    return [f"{stage} reached {share:.0%} {_ABOVE}" for stage, share in shares.items() if share >= 1.005]
