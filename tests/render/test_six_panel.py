"""The scaling figure, checked through its artists after drawing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import binom

from tests.helpers.checks import known
from tests.helpers.drawn import error_bars, points_of, xs, ys
from tests.helpers.synthetic_runs import GIB, cell, frame, samples, sweep
from vlmprof.analysis.frames import split_lines
from vlmprof.analysis.reference import load_reference
from vlmprof.records import Status
from vlmprof.render.figures.six_panel import draw_reference, six_panel
from vlmprof.render.figures.style import line_styles

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "GiB": GIB}
COLUMNS = {
    "a": "host_vision_s",
    "b": "host_prefill_s",
    "c": "end_to_end_s",
    "d": "gpu_vision_s",
    "e": "gpu_prefill_s",
    "f": "peak_allocated_bytes",
}


def panels(figure: Figure) -> dict[str, Axes]:
    """The panels by their letters, where they are once the figure is drawn."""
    figure.draw_without_rendering()
    return undrawn(figure)


def undrawn(figure: Figure) -> dict[str, Axes]:
    """The panels, for tests of what they hold: that is known before they are laid out."""
    return {axes.get_title()[1]: axes for axes in figure.axes}


def drawn(axes: Axes, gid: str) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_gid() == gid]


def unit(axes: Axes) -> float:
    return UNITS[axes.get_ylabel().split("(")[1].rstrip(")")]


def words(axes: Axes) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in axes.texts)


def legend_texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("log", [False, True])
def test_every_number_drawn_is_the_rows_number(log: bool) -> None:
    rows = sweep()
    for letter, axes in panels(six_panel(frame(rows), samples(rows), log=log)).items():
        shown = np.concatenate([points_of(line) for line in drawn(axes, "measured")])
        flat = [row.to_flat() for row in rows]
        expected = [(r["height_px"] * r["width_px"], r[COLUMNS[letter]] / unit(axes)) for r in flat]
        np.testing.assert_allclose(sorted(map(tuple, shown)), sorted(expected))


def test_linear_x_positions_are_proportional_to_pixels() -> None:
    axes = panels(six_panel(frame(sweep(resolutions=(224, 448, "1333x800"))), log=False))["a"]
    small, large, wide = xs(drawn(axes, "measured")[0])
    assert (large / small, wide / small) == (4.0, pytest.approx(1333 * 800 / 224**2))
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0


@pytest.mark.slow
def test_every_published_size_can_be_told_from_its_neighbours() -> None:
    found = panels(draw_reference("kuo2026"))
    sizes = np.unique(np.concatenate([xs(line) for line in drawn(found["a"], "measured")]))
    assert len(sizes) == 14
    for axes in found.values():
        dots = axes.transData.transform([(size, axes.get_ylim()[0]) for size in sizes])[:, 0]
        assert np.diff(dots).min() * 72 / axes.figure.dpi > 4
        assert axes.get_xlim()[0] > 0


def test_two_sizes_lie_apart_from_the_edges_and_not_from_zero() -> None:
    axes = panels(six_panel(frame(sweep(resolutions=(224, 320)))))["a"]
    ends = axes.transAxes.inverted().transform(axes.transData.transform([(224**2, 1), (320**2, 1)]))[:, 0]
    assert 0.05 < ends[0] < 0.2
    assert 0.8 < ends[1] < 0.95


def test_a_cross_at_the_top_marks_the_first_resolution_out_of_memory() -> None:
    figure = six_panel(frame(sweep(oom_from={"vmamba-t": 768})))
    for axes in panels(figure).values():
        (cross,) = drawn(axes, "oom")
        x, y = cross.get_transform().transform(points_of(cross)[0])
        assert y == pytest.approx(axes.get_window_extent().y1, abs=0.5)
        assert axes.transData.inverted().transform((x, y))[0] == pytest.approx(768**2)
        (way,) = [patch for patch in axes.patches if patch.get_gid() == "oom-way"]
        vmamba = next(line for line in drawn(axes, "measured") if line.get_color() == cross.get_color())
        ends = way.get_transform().transform(way.get_path().vertices)
        points = points_of(vmamba)
        last = points[np.isfinite(points[:, 1])][-1]
        np.testing.assert_allclose(ends[0], axes.transData.transform(last), atol=0.5)
        np.testing.assert_allclose(ends[-1], (x, y), atol=0.5)
        assert way.get_linestyle() not in ("-", "solid")


def test_crosses_of_one_resolution_are_stacked_and_stay_above_the_data() -> None:
    rows = sweep(oom_from={"vmamba-t": 1024, "vit-s": 1024, "vit-t": 1024})
    for axes in panels(six_panel(frame(rows))).values():
        ends = [line.get_transform().transform(points_of(line)[0]) for line in drawn(axes, "oom")]
        heights = sorted((y for _, y in ends), reverse=True)
        assert len(heights) == 3
        assert all(above - below > 4 for above, below in itertools.pairwise(heights))
        highest = max(
            np.nanmax(axes.transData.transform(points_of(line))[:, 1]) for line in drawn(axes, "measured")
        )
        assert heights[-1] > highest


def test_a_line_out_of_memory_from_its_first_cell_is_a_cross_alone() -> None:
    rows = [*sweep(("vit-t",)), cell("vmamba-t", 224, status=Status.OOM)]
    axes = panels(six_panel(frame(rows)))["a"]
    assert len(drawn(axes, "oom")) == 1
    assert not [patch for patch in axes.patches if patch.get_gid() == "oom-way"]


def test_all_out_of_memory_says_so_in_words() -> None:
    rows = [cell(name, 512, status=Status.OOM) for name in ("vit-t", "vmamba-t")]
    for axes in panels(six_panel(frame(rows))).values():
        assert "out of memory at every resolution" in words(axes)
        assert len(drawn(axes, "oom")) == 2


def test_a_failed_cell_leaves_a_gap_and_a_note() -> None:
    rows = sweep(("vit-t",), (224, 384, 512, 768))
    rows[1] = cell("vit-t", 384, status=Status.ERROR)
    figure = six_panel(frame(rows))
    (line,) = drawn(undrawn(figure)["a"], "measured")
    assert np.isnan(ys(line)).tolist() == [False, True, False, False]
    assert "1 failed" in figure.legends[0].get_title().get_text()


def test_without_a_gpu_clock_the_panels_say_so_and_memory_is_resident_with_weights_apart() -> None:
    rows = sweep(gpu=False)
    beside = panels(six_panel(frame(rows), samples(rows), reference="kuo2026"))
    for letter in "de":
        assert words(beside[letter]) == "no GPU clock on this device"
        assert not drawn(beside[letter], "measured")
    figure = six_panel(frame(rows), samples(rows))
    found = panels(figure)
    assert list(found) == ["a", "b", "c", "f"]
    note = figure.legends[0].get_title().get_text()
    assert "Left out: (d) GPU vision and (e) GPU LLM, no GPU clock on this device." in note
    assert "resident" in found["f"].get_title()
    levels = {float(y) for line in drawn(found["f"], "level") for y in ys(line)}
    assert levels == {0.5}
    top = max(ys(line).max() for line in drawn(found["f"], "measured"))
    assert top == pytest.approx(max(row.peak_rss_bytes or 0 for row in rows) / GIB)


def test_intervals_are_drawn_around_the_mean_when_samples_are_given() -> None:
    rows = sweep(("vit-t",), (224, 512))
    axes = undrawn(six_panel(frame(rows), samples(rows)))["c"]
    bars = [bar for line in error_bars(axes) for bar in line]
    means = [(row.end_to_end_s or 0) / unit(axes) for row in rows]
    assert len(bars) == 2
    assert all(low < mean < high for (low, high), mean in zip(bars, means, strict=True))
    assert not undrawn(six_panel(frame(rows)))["c"].containers


def test_an_interval_that_reaches_zero_keeps_a_logarithmic_axis_close_to_the_points() -> None:
    rows = sweep(("vit-t",), (224, 512))
    raw = samples(rows)
    end_to_end_s = rows[0].end_to_end_s or 0
    raw["vit-t-224"]["end_to_end_s"] = [end_to_end_s * share for share in (0.1, 0.1, 2.8)]
    axes = panels(six_panel(frame(rows), raw))["c"]  # a warning of matplotlib would fail this test
    assert min(low for line in error_bars(axes) for low, _ in line) <= 0
    assert axes.get_yscale() == "log"
    assert 0.3 < axes.get_ylim()[0] * unit(axes) / end_to_end_s < 1


def test_medians_are_drawn_where_there_are_samples_and_are_asked_for() -> None:
    rows = sweep(("vit-t",), (224, 512, 1024))
    raw = samples(rows)
    del raw[rows[1].cell_id]["end_to_end_s"]
    figure = six_panel(frame(rows), raw, statistic="median")
    axes = undrawn(figure)["c"]
    (line,) = drawn(axes, "measured")
    means = [[known(row.end_to_end_s)] for row in rows]
    expected = [
        float(np.median(raw[row.cell_id].get("end_to_end_s", mean)))
        for row, mean in zip(rows, means, strict=True)
    ]
    assert ys(line) * unit(axes) == pytest.approx(expected)
    bars = [bar for line in error_bars(axes) for bar in line]
    assert len(bars) == 2
    for (low, high), middle, row in zip(bars, np.delete(expected, 1), (rows[0], rows[2]), strict=True):
        ordered = np.sort(raw[row.cell_id]["end_to_end_s"])
        rank = int(binom.ppf(0.025, len(ordered), 0.5))
        assert [low * unit(axes), high * unit(axes)] == pytest.approx([ordered[rank - 1], ordered[-rank]])
        assert low * unit(axes) < middle < high * unit(axes)
    assert "Points: medians." in figure.legends[0].get_title().get_text()


def test_every_axis_carries_its_unit() -> None:
    found = undrawn(six_panel(frame(sweep())))
    assert all(axes.get_xlabel() == "Image size (pixels)" for axes in found.values())
    assert all(
        axes.get_ylabel() in {"Latency (s)", "Latency (ms)"}
        for letter, axes in found.items()
        if letter != "f"
    )
    assert found["f"].get_ylabel() == "Memory (GiB)"


@pytest.mark.slow
@pytest.mark.parametrize("width", ["one-column", "two-column"])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "resolutions", [(224, 256, 384, 512, 768, "1333x800", 1024, "800x1333", 2048, 8192), (512,)]
)
def test_tick_labels_never_overlap(width: str, log: bool, resolutions: tuple[int | str, ...]) -> None:
    figure = six_panel(frame(sweep(resolutions=resolutions)), width=width, log=log)
    for shrink in (1.0, 0.6):
        figure.set_size_inches(*(figure.get_size_inches() * shrink))
        for axes in panels(figure).values():
            labels = [text for text in axes.get_xticklabels() if text.get_text()]
            boxes = sorted((text.get_window_extent() for text in labels), key=lambda box: box.x0)
            assert labels
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
            assert labels[-1].get_text() == ("8192²" if len(resolutions) > 1 else "512²")


def test_one_colour_per_family_and_one_marker_per_size() -> None:
    names = ("vit-t", "vit-s", "vmamba-t", "vmamba-s")
    axes = undrawn(six_panel(frame(sweep(names))))["a"]
    looks = dict(zip(names, drawn(axes, "measured"), strict=True))
    assert looks["vit-t"].get_color() == looks["vit-s"].get_color() != looks["vmamba-t"].get_color()
    assert looks["vit-t"].get_marker() == looks["vmamba-t"].get_marker() != looks["vit-s"].get_marker()
    assert looks["vit-t"].get_linestyle() == "-" != looks["vmamba-t"].get_linestyle()


def test_settings_of_a_single_backbone_have_colours_of_their_own() -> None:
    rows = [row for name in ("mlp2", "pool2", "ldpv2") for row in sweep(("vit-t",), axes={"connector": name})]
    looks = drawn(undrawn(six_panel(frame(rows)))["a"], "measured")
    alone = drawn(undrawn(six_panel(frame(sweep(("vit-t",)))))["a"], "measured")
    assert looks[0].get_color() == alone[0].get_color()
    assert len({line.get_color() for line in looks}) == 3


def test_every_family_looks_different_from_every_other() -> None:
    from vlmprof.backbones import facts, names

    of_family = {facts(name).family: name for name in names()}
    lines = split_lines(frame([cell(name, 224) for name in (*of_family.values(), "own", "other", "third")]))
    looks = [(style.colour, str(style.dash)) for style in line_styles(lines).values()]
    assert len(set(looks)) == len(looks) == len(of_family) + 3


def test_a_legend_says_what_differs_and_only_that() -> None:
    rows = sweep(("vit-t",)) + sweep(("vit-t",), axes={"batch_size": 4, "dtype": "bfloat16"})
    assert legend_texts(six_panel(frame(rows))) == ["ViT-T · float32 · batch 1", "ViT-T · bfloat16 · batch 4"]
    assert legend_texts(six_panel(frame(sweep(("vit-t",))))) == ["ViT-T"]
    fills = {line.get_fillstyle() for line in drawn(undrawn(six_panel(frame(rows)))["a"], "measured")}
    assert len(fills) == 2


@pytest.mark.parametrize("width", ["one-column", "two-column"])
def test_twenty_backbones_keep_their_legend_on_the_page_and_off_the_panels(width: str) -> None:
    names = [f"{family}-{size}" for family in ("vit", "vmamba", "vitdet", "swin", "vim") for size in "tsbl"]
    figure = six_panel(frame(sweep(names, oom_from={"vit-l": 768})), width=width)
    found = panels(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    assert all(known(axes.get_tightbbox()).y0 >= box.y1 for axes in found.values())
    assert len([text for text in legend_texts(figure) if text.strip()]) == 21


def test_memory_is_not_called_allocated_where_no_cell_says_so() -> None:
    rows = [cell(name, 512, status=Status.OOM, gpu=False) for name in ("vit-t", "vmamba-t")]
    assert undrawn(six_panel(frame(rows)))["f"].get_title() == "(f) Peak memory"


def test_one_cell_is_a_figure() -> None:
    axes = panels(six_panel(frame([cell()]), samples([cell()])))["a"]
    assert len(drawn(axes, "measured")) == 1
    low, high = axes.get_xlim()
    assert low < 224**2 < high


def test_reference_points_lie_pale_behind_ours() -> None:
    figure = six_panel(frame(sweep()), reference="kuo2026")
    axes = undrawn(figure)["a"]
    pale, ours = drawn(axes, "reference"), drawn(axes, "measured")
    assert len(pale) == 3
    assert max(line.get_zorder() for line in pale) < min(line.get_zorder() for line in ours)
    assert {line.get_color() for line in pale} == {line.get_color() for line in ours}
    assert all(known(line.get_alpha()) < 0.5 for line in pale)
    paper = load_reference("kuo2026").query("backbone == 'vit-t' and resolution == '512'").iloc[0]
    values = [y * unit(axes) for line in pale for x, y in points_of(line) if x == 512**2]
    assert any(value == pytest.approx(paper["host_vision_s"]) for value in values)
    assert "Kuo & Cascante-Bonilla 2026" in figure.legends[0].get_title().get_text()


@pytest.mark.slow
def test_the_published_figure_from_its_points() -> None:
    found = undrawn(draw_reference("kuo2026"))
    assert all(len(drawn(axes, "measured")) == 10 for axes in found.values())
    for axes in found.values():
        assert sorted(xs(line)[0] for line in drawn(axes, "oom")) == [3072**2] * 3
    highest = max(np.nanmax(ys(line)) for line in drawn(found["f"], "measured"))
    assert highest == pytest.approx(55.44656)
    assert to_hex(drawn(found["a"], "oom")[0].get_color()) == "#009e73"


def test_lines_of_many_settings_look_different_and_the_others_are_counted() -> None:
    settings = [{"frames": f, "llm_precision": p, "connector": c} for f in (1, 4, 16)
                for p in ("as-dtype", "int4-weight") for c in ("mlp2", "pool2")]  # fmt: skip
    rows = frame(
        [cell(b, s, axes=a) for b in ("vit-t", "vit-b", "vmamba-t") for s in (224, 448) for a in settings]
    )
    looks = [tuple(vars(style).values()) for style in line_styles(split_lines(rows)).values()]
    assert len(set(looks)) == len(looks) == 36
    figure = six_panel(rows)
    assert "The first 24 of 36 lines, backbones in turn." in figure.legends[0].get_title().get_text()
    assert len(figure.legends[0].get_texts()) == 24
