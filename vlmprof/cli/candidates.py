"""The specification of a search: that of a sweep, with every candidate on the searched axis."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from vlmprof.backbones import catalog
from vlmprof.errors import UserError, check_known
from vlmprof.spec import SweepSpec, build_spec, load_spec
from vlmprof.vlm import connector_catalog

SEARCHED = {"resolution": 8192, "batch_size": 256, "frames": 256}
"""Axes that can be searched, with the default largest value."""

MOST = 2**16
"""The largest value to search: every candidate is a cell."""


def spec(
    source: str | None, overrides: Mapping[str, Any], axis: str, largest: int | None, step: int
) -> SweepSpec:
    """Build a validated specification with the candidates on `axis`: the values given, or all multiples of
    `step` pixels up to `largest` that a backbone accepts, or all batch sizes or numbers of frames up to
    `largest`.

    Raises `UserError` for any other axis, or if there are no candidates.
    """
    check_known("axis to search", [axis], SEARCHED)
    most = SEARCHED[axis] if largest is None else largest
    if step < 1 or not 1 <= most <= MOST:
        raise UserError(f"--step must be at least 1, and --largest from 1 to {MOST}")
    wanted = dict(overrides)
    if not {"warm_up", "iterations", "sampling"} & wanted.keys():
        wanted |= {"warm_up": 1, "iterations": 1}
    if axis != "resolution":
        wanted.setdefault(axis, list(range(1, most + 1)))
    elif axis not in wanted:
        # the accepted sizes depend on the backbones
        first = _build(source, {**wanted, axis: [step]})
        parts = itertools.product(first.axes.backbone, first.axes.level, first.axes.connector)
        facts = [
            connector_catalog.facts(connector).sizes_of(
                catalog.facts(name, catalog.level_number(name, level))
            )
            for name, level, connector in parts
        ]
        # a VLM's own processor takes photos of any size, as tiling does
        any_size = bool(first.axes.vlm) or set(first.axes.tiling) != {"none"}
        sides = range(step, most + 1, step)
        wanted[axis] = [s for s in sides if any_size or any(known.accepts(s, s) for known in facts)]
        if not wanted[axis]:
            raise UserError(f"these backbones accept no multiple of {step} up to {most}")
    return _build(source, wanted)


def _build(source: str | None, overrides: Mapping[str, Any]) -> SweepSpec:
    return build_spec({}, overrides, "search") if source is None else load_spec(source, overrides)
