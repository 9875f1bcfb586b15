"""A sweep of tiled photos, from the command line to its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import vlmprof


@pytest.mark.slow
def test_tiled_photos_are_measured_as_planned(tmp_path: Path) -> None:
    """Photos of 128 × 64 in tiles of 64: two, and one of the whole photo."""
    options = {
        "--backbone": ["vit-t"], "--resolution": ["128x64"], "--connector": ["mlp2", "pool2"],
        "--tiling": ["none", "anyres", "dynamic"], "--tile-size": ["64"], "--max-tiles": ["4"],
        "--warm-up": ["0"], "--iterations": ["2"], "--out": ["run"],
    }  # fmt: skip
    words = [word for name, values in options.items() for value in values for word in (name, value)]
    ended = vlmprof(tmp_path, "sweep", "quick", "--share-llm", *words)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    tokens = {
        (row["connector"], row["tiling"]): (row["tiles"], row["encoder_tokens"], row["visual_tokens"])
        for row in rows
    }
    assert tokens == {
        ("mlp2", "none"): (None, 32, 32),
        ("mlp2", "anyres-64-4"): (3, 48, 16 + 4 * 9),
        ("mlp2", "dynamic-64-4"): (3, 48, 48),
        ("pool2", "none"): (None, 8 * 4, 8),
        ("pool2", "anyres-64-4"): (3, 48, 4 + 2 * 5),
        ("pool2", "dynamic-64-4"): (3, 48, 12),
    }
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["height_px"], row["width_px"]) for row in rows} == {(64, 128)}
    encoded = {row["encoder_height_px"] for row in rows if row["tiling"] != "none"}
    assert encoded == {64}
    by_tokens = {row["visual_tokens"]: row["counted_prefill_flops"] for row in rows}
    assert list(map(by_tokens.get, sorted(by_tokens))) == sorted(by_tokens.values())
