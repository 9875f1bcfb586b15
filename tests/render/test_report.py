"""The report's pages: contents, escaping, no external resources, and unusual runs."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import binom

from tests.helpers.checks import known
from tests.helpers.drawn import xs, ys
from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.analysis.estimates import Estimates
from vlmprof.analysis.runs import Run
from vlmprof.errors import UserError
from vlmprof.records import STAGES, Row, Status
from vlmprof.render import report
from vlmprof.render.figures.files import save_figure
from vlmprof.render.figures.report import PICTURES
from vlmprof.render.report import write_report
from vlmprof.render.report.content import gather
from vlmprof.render.tables.export import latex_escape, markdown_escape, to_latex
from vlmprof.render.tables.scaling import cell_sheets
from vlmprof.render.tables.sheet import Kind, Value, show

HOSTILE = '</script><script>alert("x")</script> <img src=x onerror=alert(1)> | **b** `c` & \\evil{} $\\frac{$'


class Page(HTMLParser):
    """The elements, links and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if len(data) < 10_000:
            self.text.append(data)


def make(rows: list[Row], folder: Path, name: str = "run", command: str = "vlmprof sweep") -> tuple[str, str]:
    manifest = {"command": command, "environment": {"cpu": "none", "packages": {"torch": "2"}}, "spec": {}}
    write_report([Run(name, frame(rows), samples(rows), manifest)], folder)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


@pytest.fixture
def _blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save blank pictures in a test of the page alone: theirs take four fifths of a report's time."""

    def save(figure: Figure, folder: Path, stem: str, formats: list[str], dpi: int) -> list[Path]:
        return save_figure(Figure(figsize=(1, 1)), folder, stem, formats, dpi)

    monkeypatch.setattr(report, "save_figure", save)


def data_of(html: str) -> dict[str, Any]:
    found = known(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S))
    return json.loads(found[1])


@pytest.mark.slow
@pytest.mark.usefixtures("_blank")
def test_the_page_holds_the_rows_and_loads_nothing(tmp_path: Path) -> None:
    rows = sweep(oom_from={"vmamba-t": 1024})
    html, markdown = make(rows, tmp_path)
    page = Page(html)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "default-src 'none'" in html
    charts = data_of(html)["charts"]
    panel = charts["panels"][2]
    drawn = [value for trace in panel["traces"] for value in trace["values"] if value is not None]
    assert sorted(drawn) == sorted(known(row.end_to_end_s) for row in rows if row.status is Status.OK)
    oom = [
        (line["label"], trace["oom_size"])
        for line, trace in zip(charts["lines"], panel["traces"], strict=True)
    ]
    assert oom == [("ViT-T", None), ("ViT-S", None), ("VMamba-T", 1024**2)]
    for title in (
        "Cells",
        "Where the time goes",
        "Scaling",
        "Crossovers",
        "Out-of-memory frontier",
        "Environment",
    ):
        assert title in page.text
        assert f"## {title}" in markdown
    assert "![Six panels" in markdown


@pytest.mark.usefixtures("_blank")
def test_means_and_medians_have_their_own_intervals(tmp_path: Path) -> None:
    (row,) = rows = [cell("vit-t", 224)]
    _, markdown = make(rows, tmp_path)
    gpu_s = np.sort(samples(rows)[row.cell_id]["gpu_vision_s"])
    rank = int(binom.ppf(0.025, len(gpu_s), 0.5))
    median, low, high = (1e6 * value for value in (np.median(gpu_s), gpu_s[rank - 1], gpu_s[-rank]))
    table = markdown.split("### Vision")[1].split("###")[0]
    head, _, values = (line.split(" | ") for line in table.splitlines() if line.startswith("|"))
    assert values[head.index("Median")] == f"{median:.0f} ({low:.0f} to {high:.0f}) µs"
    assert values[head.index("GPU")].startswith(f"{known(row.stages['vision'].gpu_s) * 1e6:.0f} (")
    assert "End-to-end median" in markdown


@pytest.mark.slow
@pytest.mark.usefixtures("_blank")
def test_the_chart_of_fits_holds_the_points_and_the_curve_that_made_them(tmp_path: Path) -> None:
    rows = sweep(("vit-t", "vit-s"), oom_from={"vit-s": 384})
    fits = {fit["title"]: fit for fit in data_of(make(rows, tmp_path)[0])["charts"]["fits"]}
    assert {"end-to-end", "GPU vision", "peak allocated"} <= fits.keys()
    assert {fit["kind"] for fit in fits.values()} == {"seconds", "bytes"}
    fitted, too_short = fits["end-to-end"]["lines"]
    assert too_short is None
    assert fitted["tokens"] == [row.visual_tokens for row in rows[:6]]
    assert fitted["values"] == [row.end_to_end_s for row in rows[:6]]
    tokens, curve = np.array(fitted["curve_tokens"]), np.array(fitted["curve"])
    assert (tokens[0], tokens[-1]) == (14**2, 64**2)
    np.testing.assert_allclose(curve, 0.4 * 3.7 * (1e-3 + 2e-6 * tokens), rtol=1e-4)
    assert (np.array(fitted["low"]) <= curve).all()
    assert (curve <= np.array(fitted["high"])).all()


@pytest.mark.slow
def test_text_from_a_run_is_escaped_everywhere(tmp_path: Path) -> None:
    rows = [
        *sweep(("vit-t",)),
        cell("vit-s", 512, status=Status.ERROR, message=HOSTILE, axes={"llm": HOSTILE}),
    ]
    html, markdown = make(rows, tmp_path, name=HOSTILE, command=HOSTILE)
    page = Page(html)
    assert page.tags.count("script") == 3
    assert "img" not in page.tags[: page.tags.index("section")]
    assert page.tags.count("img") == 1
    assert HOSTILE.split(" | ")[0] in " ".join(page.text)
    assert any(HOSTILE in label["label"] for label in data_of(html)["charts"]["lines"])
    outside_code = re.sub(r"```.*?```", "", markdown, flags=re.S)
    assert "<script" not in outside_code
    assert "<img" not in outside_code
    for table in re.findall(r"(?:^\|.*\n)+", outside_code, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [cell()],
        sweep(("vit-t",)),
        [cell(name, 512, status=Status.OOM) for name in ("vit-t", "vmamba-t")],
        [cell(status=Status.ERROR)],
        sweep(
            [f"{family}-{size}" for family in ("vit", "vmamba", "vitdet", "swin", "vim") for size in "tsbl"]
        ),
        sweep(gpu=False),
    ],
    ids=["one cell", "one backbone", "all oom", "all failed", "twenty backbones", "cpu"],
)
def test_odd_runs_make_a_report(tmp_path: Path, rows: list[Row]) -> None:
    html, markdown = make(rows, tmp_path)
    no_gpu_clock = rows[0].device == "cpu" and rows[0].status is Status.OK
    assert len(data_of(html)["charts"]["panels"]) == (4 if no_gpu_clock else 6)
    assert "nan" not in re.sub(r"data:image[^\"]*", "", markdown).lower().replace("nanosecond", "")


def drawn(rows: list[Row]) -> dict[str, Figure | None]:
    """Every picture of a report of these rows, by its word."""
    content = gather([Run("run", frame(rows), samples(rows), {})])
    return {word: draw(content.charts) for section in PICTURES.values() for word, _, draw in section}


@pytest.mark.slow
def test_pictures_are_drawn_from_the_rows(tmp_path: Path) -> None:
    rows = sweep(("vit-t", "vmamba-t"), oom_from={"vmamba-t": 1024})
    pictures = drawn(rows)
    ok = [row for row in rows if row.status is Status.OK]
    for axes, name in zip(known(pictures["stages"]).axes, ("vit-t", "vmamba-t"), strict=True):
        mine = [row for row in ok if row.axes["backbone"] == name]
        boxes = {c.get_gid(): [path.get_extents() for path in c.get_paths()] for c in axes.collections}
        stacked = {stage: [box.height for box in boxes.get(stage, ())] for stage in STAGES}
        for stage in ("vision", "prefill"):
            assert stacked[stage] == pytest.approx([1e3 * known(row.stages[stage].gpu_s) for row in mine])
        tops = [box.y1 for box in boxes["prefill"]]
        assert tops == pytest.approx(
            [v + p for v, p in zip(stacked["vision"], stacked["prefill"], strict=True)]
        )
    shares = [ys(line) for axes in known(pictures["launch"]).axes for line in axes.lines]
    assert np.nanmax(np.abs(np.concatenate(shares) - 100 / 1.2)) < 1e-6
    end_to_end = next(axes for axes in known(pictures["fits"]).axes if axes.get_title() == "End-to-end")
    points = [ys(line) for line in end_to_end.lines if line.get_gid() == "fitted"]
    assert sorted(np.concatenate(points)) == pytest.approx(
        sorted(1e3 * known(row.end_to_end_s) for row in ok)
    )
    (axes,) = known(pictures["frontier"]).axes
    assert [xs(line).tolist() for line in axes.lines if line.get_gid() == "oom"] == [[1024**2]]
    _, markdown = make(rows, tmp_path)
    linked = set(re.findall(r"!\[[^\]]*\]\(([^)]*)\)", markdown))
    assert linked == {path.name for path in tmp_path.glob("*.png")}
    assert len(linked) == 5


def test_names_of_resolutions_in_stacked_stages_do_not_overlap() -> None:
    rows = sweep(("vit-t", "vit-s", "vmamba-t"), (224, "320x448", "448x320", 512, "640x480", 768))
    figure = known(drawn(rows)["stages"])
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) > 2
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_nothing_is_pictured_that_was_not_measured() -> None:
    def told(rows: list[Row]) -> set[str]:
        return {word for word, picture in drawn(rows).items() if picture is not None}

    assert told([cell(status=Status.ERROR)]) == set()
    assert told([cell(status=Status.OOM)]) == {"frontier"}
    assert told(sweep(gpu=False)) == {"stages", "fits"}
    assert told([cell()]) == {"stages", "launch"}


@pytest.mark.slow
@pytest.mark.usefixtures("_blank")
def test_several_runs_are_told_apart(tmp_path: Path) -> None:
    runs = [Run("same", frame(sweep(("vit-t",), scale=scale)), {}, {}) for scale in (1.0, 2.0)]
    write_report(runs, tmp_path)
    labels = [line["label"] for line in data_of((tmp_path / "report.html").read_text())["charts"]["lines"]]
    assert labels == ["ViT-T · same (1)", "ViT-T · same (2)"]
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_blank")
def test_many_rows_are_all_in_the_page_and_charts_say_what_they_leave_out(tmp_path: Path) -> None:
    base = frame(sweep(("vit-t",), (224, 512)))
    many = pd.concat(
        [
            base.assign(llm=f"llm-{i}", cell_id=[f"{name}-{i}" for name in base["cell_id"]])
            for i in range(1000)
        ],
        ignore_index=True,
    )
    write_report([Run("many", many, {}, {})], tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert len(data_of(html)["sheets"]["cells"]["columns"][0]) == 2000
    assert "the first 24 of 1,000 lines" in html
    assert html.count("<tr>") < 300
    assert "The first 100 of 2,000 rows" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Kind.SECONDS, 0.00123, "1.23 ms"),
        (Kind.SECONDS, [0.012, 0.0115, 0.0125], "12.0 (11.5 to 12.5) ms"),
        (Kind.SECONDS, [-1e-6, -2e-6, 1e-7], "-1.00 (-2.00 to 0.100) µs"),
        (Kind.BYTES, 13.2957 * 2**30, "13.3 GiB"),
        (Kind.PERCENT, 0.324, "32.4 %"),
        (Kind.COUNT, 16384, "16,384"),
        (Kind.PIXELS, [512**2, 500**2, 1024**2], "512² (500² to 1,024²)"),
        (Kind.SECONDS, 0.0, "0.00 ps"),
        (Kind.TEXT, None, ""),
        (Kind.SECONDS, None, ""),
    ],
)
def test_values_for_people(kind: Kind, value: Value, words: str) -> None:
    assert show(kind, value) == words


def test_escapes() -> None:
    assert latex_escape("50 % & a_b {x} 224² µ\u4e2d") == (
        r"50 \% \& a\_b \{x\} 224\textsuperscript{2} \textmu{}?"
    )
    assert markdown_escape("a|b\n<i>") == "a\\|b &lt;i&gt;"
    table = to_latex(cell_sheets(Estimates(frame([cell()])))[0])
    assert r"\toprule" in table
    head, body = (line for line in table.splitlines() if line.endswith(r"\\"))
    assert head.count("&") == body.count("&") == 10
