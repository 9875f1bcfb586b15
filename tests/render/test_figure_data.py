"""The report's script and matplotlib draw the same numbers, and these are computed once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.helpers.checks import known
from tests.helpers.drawn import error_bars, xs, ys
from tests.helpers.synthetic_runs import GIB, cell, frame, samples, sweep
from vlmprof.analysis import estimates
from vlmprof.analysis.frames import Statistic
from vlmprof.analysis.runs import Run
from vlmprof.analysis.series import FigureData
from vlmprof.records import Status
from vlmprof.render import report
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.six_panel import draw_six_panel, six_panel

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "GiB": GIB}
LABELS = ("VMamba-T", "ViT-T", "ViT-S")
ROWS = sweep(("vmamba-t", "vit-t", "vit-s"), oom_from={"vmamba-t": 768, "vit-s": 1024})
ROWS[8] = cell("vit-t", 384, status=Status.ERROR)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_the_report_and_the_figure_show_the_same_numbers(
    statistic: Statistic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []

    def kept(data: FigureData) -> Figure:
        figures.append(draw_six_panel(data))
        return figures[-1]

    monkeypatch.setattr(report, "draw_six_panel", kept)
    sampling = "adaptive" if statistic == "median" else "fixed"
    run = Run("run", frame(ROWS), samples(ROWS), {"spec": {"fixed": {"sampling": sampling}}})
    report.write_report([run], tmp_path, ["html"])
    html = (tmp_path / "report.html").read_text()
    charts = json.loads(known(re.search(r'id="data">(.*?)</script>', html, re.S))[1])["charts"]
    labels = [line["label"] for line in charts["lines"]]
    assert sorted(labels) == sorted(LABELS)
    assert labels != list(LABELS), "the report's lines are by family, the figure's as in the frame"
    (figure,) = figures
    for axes, panel in zip(figure.axes, charts["panels"], strict=True):
        unit = UNITS[axes.get_ylabel().split("(")[1].rstrip(")")]
        traces = dict(zip(labels, panel["traces"], strict=True))
        lines = [line for line in axes.lines if line.get_gid() == "measured"]
        crosses = [xs(line)[0] for line in axes.lines if line.get_gid() == "oom"]
        for label, line in zip(LABELS, lines, strict=True):
            joined = np.array(traces[label]["joined"])
            pixels, values = (np.array(traces[label][name], dtype=float) for name in ("sizes", "values"))
            assert xs(line).tolist() == pixels[joined].tolist()
            np.testing.assert_allclose(ys(line) * unit, values[joined])
        bars = error_bars(axes)
        assert len(bars) == (0 if panel["kind"] == "bytes" else 3)
        for label, segments in zip(LABELS, bars, strict=False):
            low, high = (np.array(traces[label][end], dtype=float) for end in ("low", "high"))
            ends = np.column_stack([low, high])[np.isfinite(low)]
            np.testing.assert_allclose([segment * unit for segment in segments], ends)
        assert crosses == [traces[label]["oom_size"] for label in ("VMamba-T", "ViT-S")]


def test_an_interval_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[tuple[str, str]] = Counter()
    for name in ("column_intervals", "column_medians"):
        original = getattr(estimates, name)

        def counted(
            rows: pd.DataFrame,
            column: str,
            raw: object,
            name: str = name,
            original: Callable[..., object] = original,
        ) -> object:
            asked[name, column] += len(rows)
            return original(rows, column, raw)

        monkeypatch.setattr(estimates, name, counted)

    def save_blank(figure: Figure, folder: Path, stem: str, formats: list[str], dpi: int) -> list[Path]:
        return save_figure(Figure(figsize=(1, 1)), folder, stem, formats, dpi)

    monkeypatch.setattr(report, "save_figure", save_blank)
    run = Run("run", frame(ROWS), samples(ROWS), {})
    report.write_report([run], tmp_path)
    assert {("column_intervals", "gpu_vision_s"), ("column_medians", "end_to_end_s")} <= asked.keys()
    assert set(asked.values()) == {len(ROWS)}
    asked.clear()
    six_panel(run.frame, run.samples)
    assert len(asked) == 6
    assert set(asked.values()) == {len(ROWS)}
