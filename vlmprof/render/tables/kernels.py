"""Tables of the rows of `vlmprof kernels bench`: encoders compared with the paper, and single operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmprof.render.labels import backbone_label
from vlmprof.render.tables.sheet import Column, Kind, Sheet, Value

PAPERS_CARD = "NVIDIA H200"
MODES = ("eager", "graphs", "compile", "fused", "fused graphs")
"""Modes of this project's encoders, with the one expected to be the fastest last."""

PLACE = ("backbone", "resolution", "dtype", "levels")

Rows = Sequence[Mapping[str, Any]]


def encoder_sheet(rows: Rows) -> Sheet:
    """Return a table of `backbones.json`: one line per encoder and resolution, with a median per mode.

    The paper's latency is shown for every card, the ratio to it only for the paper's card.
    """
    present = list(dict.fromkeys(row["mode"] for row in rows))
    modes = sorted(present, key=lambda mode: MODES.index(mode) if mode in MODES else len(MODES))
    names = list(dict.fromkeys(row["backbone"] for row in rows))
    places = sorted({_place(row) for row in rows}, key=lambda place: (names.index(place[0]), place[1:]))
    found = {(_place(row), row["mode"]): row for row in rows}

    def values(mode: str, name: str = "median_s") -> list[Value]:
        here = [found.get((place, mode)) for place in places]
        return [None if r is None else r[name] if r["status"] == "ok" else _why(r) for r in here]

    in_paper = {_place(row): row["paper_gpu_vision_s"] for row in rows}
    paper: list[Value] = [in_paper[place] for place in places]
    columns = [
        Column("backbone", Kind.TEXT, [backbone_label(str(place[0])) for place in places]),
        Column("resolution", Kind.TEXT, [f"{place[1]}²" for place in places]),
        *(
            Column(name, Kind.TEXT, [place[i] for place in places])
            for i, name in enumerate(PLACE)
            if i > 1 and len({place[i] for place in places}) > 1
        ),
    ]
    measured = {row["mode"] for row in rows if row["status"] == "ok"}
    best = next((mode for mode in reversed(MODES) if mode in measured), None)
    columns += [Column(mode, Kind.SECONDS, values(mode), 0 if mode == best else 1) for mode in modes]
    if any(paper):
        columns.append(Column("paper (H200)", Kind.SECONDS, paper, 1))
        if best and {_card(row) for row in rows} == {PAPERS_CARD}:
            columns.append(Column(f"paper / {best}", Kind.RATIO, _ratios(paper, values(best)), 2))
    if best:
        columns += [
            Column(f"{other} / {best}", Kind.RATIO, _ratios(values(other), values(best)), 2)
            for other in ("public", "public graphs")
            if other in measured
        ]
        peaks = values(best, "peak_allocated_bytes")
        columns.append(Column(f"peak, {best}", Kind.BYTES, peaks, 3))
    note = (
        f"Medians of single calls on {_cards(rows)}, batch size 1. Fused: this project's Triton kernels. "
        "Graphs: replays of a CUDA graph, without launch overhead."
    )
    return Sheet("encoders", "Vision encoders", note, columns)


def operation_sheet(rows: Rows) -> Sheet:
    """Return a table of `bench.json`, with shares of the ceilings measured in the same run."""

    def column(title: str, kind: Kind, name: str, rank: int = 0) -> Column:
        return Column(title, kind, [row[name] for row in rows], rank)

    times: list[Value] = [[row["median_s"], row["quartile_low_s"], row["quartile_high_s"]] for row in rows]
    note = (
        f"Medians, with quartiles in parentheses, on {_cards(rows)}. Bytes and FLOPs are counted, with each "
        "input read once and each output written once. Shares are relative to a large copy and a large "
        "matrix product in the same run."
    )
    columns = [
        column("operation", Kind.TEXT, "op"),
        column("shape", Kind.TEXT, "shape"),
        column("dtype", Kind.TEXT, "dtype", 1),
        column("backend", Kind.TEXT, "backend"),
        column("launch", Kind.TEXT, "launch", 1),
        Column("time", Kind.SECONDS, times),
        Column("GB/s", Kind.NUMBER, [row["bytes_per_s"] / 1e9 for row in rows], 3),
        column("of copy", Kind.PERCENT, "share_of_copy_ceiling", 2),
        Column("TFLOP/s", Kind.NUMBER, [row["flops_per_s"] / 1e12 for row in rows], 3),
        column("of matrix product", Kind.PERCENT, "share_of_matmul_ceiling", 2),
    ]
    return Sheet("operations", "Operations", note, columns)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in PLACE)


def _card(row: Mapping[str, Any]) -> str:
    return str(row.get("device_name") or row.get("device") or "an unnamed device")


def _cards(rows: Rows) -> str:
    return ", ".join(sorted({_card(row) for row in rows}))


def _why(row: Mapping[str, Any]) -> str:
    return "out of memory" if row["status"] == "oom" else str(row["status"])


def _ratios(slow: Sequence[Value], fast: Sequence[Value]) -> list[Value]:
    return [
        a / b if isinstance(a, float) and isinstance(b, float) else None
        for a, b in zip(slow, fast, strict=True)
    ]
