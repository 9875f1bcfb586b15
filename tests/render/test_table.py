"""The terminal table."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.analysis.estimates import Estimates
from vlmprof.records import Row, Status
from vlmprof.render.tables.cells import run_sheet
from vlmprof.render.tables.export import run_sheets
from vlmprof.render.tables.row_warnings import warning_lines
from vlmprof.render.tables.sheet import Column, Kind, Sheet
from vlmprof.render.tables.terminal import print_sheet


def text(rows: Sequence[Row], with_samples: bool = True, width: int = 200) -> str:
    out = io.StringIO()
    estimates = Estimates(frame(rows), samples(rows) if with_samples else None)
    print_sheet(Console(file=out, width=width), run_sheet(estimates))
    return out.getvalue()


def test_a_row_reads_as_words_with_units() -> None:
    shown = text([cell("vmamba-t", 512)])
    assert "\x1b" not in shown
    (line,) = [line for line in shown.splitlines() if "VMamba-T" in line]
    assert all(word in line for word in ("512²", "1,024", "3.05 ms", "11.3 ms ±", "707 MiB", "ok"))
    assert "±" not in text([cell()], with_samples=False)


def test_the_median_stands_beside_the_mean_with_its_own_interval() -> None:
    row = cell("vmamba-t", 512)
    ordered = np.sort(samples([row])[row.cell_id]["end_to_end_s"])
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    half = (ordered[-rank] - ordered[rank - 1]) / 2 / np.median(ordered)
    (line,) = [line for line in text([row]).splitlines() if "VMamba-T" in line]
    assert f"{np.median(ordered) * 1e3:.3g} ms ± {100 * half:.2g} %" in line
    assert "median" not in text([row], with_samples=False)


def test_axes_that_some_rows_lack_are_none_and_stay_integers() -> None:
    composed = cell("vit-t", axes={"prefill_chunk": 256}, warnings=("careful",))
    vlm = cell("x/vlm", axes={"vlm": "hf:x/vlm"}, warnings=("careful",))
    rows = frame([composed, vlm])
    assert warning_lines(rows) == [
        "ViT-T 224² 256 none: careful",
        "x/vlm 224² none hf:x/vlm: careful",
    ]
    (_, _, chunk, *_), *_ = [sheet.columns for sheet in run_sheets(rows, {})]
    assert (chunk.values, chunk.raw) == (["256", "none"], [256, None])


def test_levers_are_exported_where_there_are_any() -> None:
    def names(*dtypes: str) -> set[str]:
        rows = [cell("vit-t", side, axes={"dtype": dtype}) for side in (224, 512) for dtype in dtypes]
        return {sheet.name for sheet in run_sheets(frame(rows), {})}

    assert "levers" in names("float32", "bfloat16")
    assert "levers" not in names("float32")


def test_an_interval_wider_than_its_mean_is_no_percentage() -> None:
    row = cell("vmamba-t", 512)
    jumped = {row.cell_id: {"end_to_end_s": [0.01] * 9 + [0.4] * 3}}
    out = io.StringIO()
    print_sheet(Console(file=out, width=200), run_sheet(Estimates(frame([row]), jumped)))
    assert "± over 100 %" in out.getvalue()


def test_failures_are_told_in_words() -> None:
    rows = [
        cell("vit-t", 512, status=Status.OOM),
        cell("vit-s", 512, status=Status.ERROR, message="boom [not markup]\nsecond line"),
        cell("vit-b", 512, status=Status.TIMEOUT),
        cell("vit-b", 1024, status=Status.SKIPPED, message="512² of this line ran out of memory"),
    ]
    shown = text(rows)
    for words in ("out of memory in vision", "failed: boom [not markup]", "timed out", "skipped: 512²"):
        assert words in shown
    assert "second line" not in shown
    assert "nan" not in shown.lower()


def test_remarks_of_rows_stand_below_the_table() -> None:
    odd = ("host_vision_s drifted by +3%", "medians not within ±1.0%: " + "host_vision_s ±2%, " * 9)
    rows = [
        cell("vit-t", 224, warnings=odd, axes={"mode": "eager"}),
        cell("vit-t", 224, disturbances=("other [processes] took 0.7 of 2 cores",), axes={"mode": "compile"}),
        cell("vit-t", 512, axes={"mode": "eager"}),
    ]
    assert warning_lines(frame(rows)) == [
        f"ViT-T 224² eager: {odd[0]}; {odd[1]}",
        "ViT-T 224² compile: other [processes] took 0.7 of 2 cores",
    ]
    lines = [line for line in text(rows).splitlines() if "ViT-T" in line]
    assert len(lines) == 3
    assert ["see below" in line for line in lines] == [True, True, False]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_keeps_status_and_reasons(width: int) -> None:
    why = "RuntimeError: [enforce fail at alloc_cpu.cpp:127] you tried to allocate 100663296 bytes"
    rows = sweep(("vit-t", "vmamba-t"), (224, 512), oom_from={"vmamba-t": 512})
    rows[1] = cell("vit-t", 512, status=Status.ERROR, message=why)
    shown = text(rows, width=width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    heads = next(line for line in lines if line.startswith("backbone")).split("  ")
    assert {"backbone", "resolution", "end-to-end", "peak allocated", "status"} <= {h.strip() for h in heads}
    assert "out of memory in vision" in shown
    status = shown.index("status") - shown.index("backbone")
    folded = " ".join(line[status:].strip() for line in lines[2:] if line[status:].strip())
    assert f"failed: {why}" in folded
    words = " ".join(shown.split())
    whole = text(rows).splitlines()[1]
    assert all(title in words for title in filter(None, map(str.strip, whole.split("  "))))
    assert "host LLM" in words[words.index("not shown at this width") :]
    assert "not shown" not in text(rows)


def test_a_column_with_one_value_moves_above_a_narrow_table() -> None:
    columns = [
        Column("backbone", Kind.TEXT, ["vit-t", "vmamba-t"]),
        Column("visual tokens", Kind.COUNT, [196, 196], 1),
        Column("nothing", Kind.COUNT, [None, None], 1),
        Column("latency", Kind.SECONDS, [0.001, 0.002], 1),
    ]
    shown = {}
    for width in (80, 24):
        out = io.StringIO()
        print_sheet(Console(file=out, width=width), Sheet("some", "Some", "", columns))
        shown[width] = [line.split() for line in out.getvalue().splitlines()]
    assert shown[80] == [
        ["backbone", "visual", "tokens", "latency"],
        ["vit-t", "196", "1.00", "ms"],
        ["vmamba-t", "196", "2.00", "ms"],
    ]
    assert shown[24] == [
        ["visual", "tokens", "196"],
        ["backbone", "latency"],
        ["vit-t", "1.00", "ms"],
        ["vmamba-t", "2.00", "ms"],
    ]


def test_encoder_tokens_have_a_column_where_they_differ_from_visual_tokens() -> None:
    rows = [cell("vit-t", 512, encoder_tokens=1024, visual_tokens=n, axes={"connector": name})
            for name, n in (("mlp2", 1024), ("pool4", 64))]  # fmt: skip
    shown = text(rows, with_samples=False)
    assert [line.split()[2:5] for line in shown.splitlines() if "ViT" in line] == [
        ["mlp2", "1,024", "1,024"],
        ["pool4", "1,024", "64"],
    ]
    assert "encoder tokens  visual tokens" in shown
    assert "encoder tokens" not in text(rows[:1], with_samples=False)


def test_constant_axes_are_said_once_and_empty_columns_left_out() -> None:
    shown = text(sweep(("vit-t",), (224, 512), gpu=False))
    assert shown.count("float32") == 1
    assert "GPU" not in shown
    assert "peak resident" in shown
    varied = text([*sweep(("vit-t",), (224,)), *sweep(("vit-t",), (224,), axes={"dtype": "bfloat16"})])
    assert "bfloat16" in varied
    assert "GPU vision" in varied


@pytest.mark.parametrize("width", [80, 100])
def test_configurations_of_many_axes_are_in_lines_of_their_own(width: int) -> None:
    axes = {"llm": "qwen2.5-0.5b", "connector": "pixel-shuffle2", "tiling": "none", "frames": 8}
    rows = [
        cell(name, side, axes={**axes, "llm_precision": bits}, status=status)
        for name, side, status in (("vit-t", 448, Status.OK), ("vmamba-t", "1024x672", Status.OOM))
        for bits in ("as-dtype", "int4-weight")
    ]
    rows.append(cell("vit-t", 448, axes={**axes, "llm": "vicuna-7b", "tiling": "anyres", "frames": 1}))
    rows.append(
        cell("vit-t", 448, axes={**axes, "connector": "mlp2"}, status=Status.ERROR, message="so " * 40)
    )
    shown = text(rows, width=width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in shown
    named = "ViT-T · 448² · qwen2.5-0.5b · pixel-shuffle2 · no tiles · 8 frames · LLM int4-weight"
    assert named in " ".join(shown.split())
    assert shown.count("448²") == 4
    assert shown.count("end-to-end") == 1
    assert shown.count("out of memory in vision") == 2
    assert shown.count(" ms ±") == 2 * 3  # mean and median
    assert " ".join(["failed:", *["so"] * 40]) in " ".join(shown.split())
