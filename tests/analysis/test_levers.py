"""The price of levers: pairs of cells that differ in one axis."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tests.helpers.synthetic_runs import cell, frame
from vlmprof.analysis.levers import Change, LeverPrice, lever_prices, levers_of, median_ends
from vlmprof.records import Row, StageFigures, Status
from vlmprof.render.report.levers import lever_sentence

MIB = 2**20
CONNECTORS = {"mlp2": (0.002, 0.100, 256), "pixel-shuffle2": (0.0024, 0.039, 64)}
"""Seconds in the connector and in prefill, and visual tokens, at 224²."""


def row(connector: str, resolution: int, backbone: str = "vit-t", llm: str = "small", **more: Any) -> Row:
    connecting, filling, tokens = CONNECTORS[connector]
    scale = (resolution / 224) ** 2
    seconds = {"vision": 0.010 * scale, "connector": connecting * scale, "prefill": filling * scale}
    return cell(
        backbone, resolution,
        axes={"connector": connector, "llm": llm, **more.pop("axes", {})},
        stages={name: StageFigures(host_s=value, gpu_s=value) for name, value in seconds.items()},
        end_to_end_s=sum(seconds.values()), visual_tokens=round(tokens * scale),
        **{"peak_allocated_bytes": 1000 * MIB, "peak_reserved_bytes": None, **more},
    )  # fmt: skip


def only(prices: list[LeverPrice], axis: str) -> LeverPrice:
    (found,) = [price for price in prices if price.change.axis == axis]
    return found


def test_pairs_differ_in_one_axis_alone() -> None:
    rows = [row(name, 224, llm=llm) for name in CONNECTORS for llm in ("small", "large")]
    rows.append(row("mlp2", 448))  # differs in two axes from the pixel-shuffled cells
    price = only(lever_prices(frame(rows)), "connector")
    assert (price.change, price.pairs) == (Change("connector", "mlp2", "pixel-shuffle2"), 2)
    differences = price.differences
    assert differences["prefill_s"].median == pytest.approx(-0.061)
    assert differences["connector_s"].median == pytest.approx(0.0004)
    assert differences["vision_s"].median == 0
    assert not differences["vision_s"].shown
    assert differences["visual_tokens"].median == -192
    assert differences["ttft_s"].relative == pytest.approx(-0.0606 / 0.112)


def test_medians_are_over_the_pairs() -> None:
    sides = (224, 448, 672, 896, 1120, 1344, 1568)
    price = only(lever_prices(frame([row(n, s) for s in sides for n in CONNECTORS])), "connector")
    gone = sorted(-0.061 * (side / 224) ** 2 for side in sides)
    assert price.pairs == 7
    assert price.has_interval
    found = price.differences["prefill_s"]
    assert (found.median, found.ends.low, found.ends.high) == pytest.approx((gone[3], gone[0], gone[-1]))


def test_a_change_from_nothing_has_no_share() -> None:
    rows = [row(n, 224, energy_per_image_j=joules) for n, joules in zip(CONNECTORS, (0.0, 2.0), strict=True)]
    price = only(lever_prices(frame(rows)), "connector")
    assert price.differences["energy_per_image_j"].relative is None
    assert "energy per image is 2.00 J higher (one pair)" in lever_sentence(price)


def test_numbers_are_compared_with_the_next_smaller() -> None:
    rows = [row("mlp2", side, axes={"batch_size": n}) for side in (448, 224) for n in (8, 1, 4)]
    changes = [price.change for price in lever_prices(frame(rows))]
    assert changes == [
        Change("resolution", "224", "448"), Change("batch_size", "1", "4"), Change("batch_size", "4", "8"),
    ]  # fmt: skip


def test_what_did_not_run_and_what_the_backbone_implies_are_no_levers() -> None:
    rows = [row("mlp2", 224), row("pixel-shuffle2", 224, status=Status.OOM)]
    assert lever_prices(frame(rows)) == []
    levels = [row("mlp2", 224, name, axes={"level": n}) for name, n in (("vit-t", 3), ("vmamba-t", 4))]
    assert levers_of(frame(levels)) == ["backbone"]
    assert lever_prices(frame([cell(status=Status.OOM)])) == []


def test_ends_are_the_order_statistics_that_enclose_the_median() -> None:
    for n in (1, 5, 6, 7, 20, 64, 200, 1500):
        ends = median_ends(np.arange(1.0, n + 1))
        rank = int(ends.low)
        assert (ends.value, ends.high) == ((n + 1) / 2, n + 1 - rank)
        if n >= 6:
            assert binom.cdf(rank - 1, n, 0.5) <= 0.025 < binom.cdf(rank, n, 0.5)
        else:
            assert rank == 1


def test_a_full_grid_has_all_its_pairs() -> None:
    grid = itertools.product(CONNECTORS, (224, 448, 672), ("small", "large"), ("vit-t", "vit-s", "vit-b"))
    prices = lever_prices(frame([row(c, s, b, m) for c, s, m, b in grid]))
    assert {price.change.axis: price.pairs for price in prices} == {
        "backbone": 12, "resolution": 12, "connector": 18, "llm": 18,
    }  # fmt: skip
