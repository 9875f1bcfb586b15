"""The report in a browser: mouse interaction, and no network requests."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.helpers.checks import known
from tests.helpers.synthetic_runs import cell, frame, samples, sweep
from vlmprof.analysis.runs import Run
from vlmprof.records import Status
from vlmprof.render.report import write_report
from vlmprof.render.tables.sheet import Kind, show

pytest.importorskip("selenium", reason="needs selenium")
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "window-size=1400,1000",
)  # fmt: skip
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'> <b>&amp;"
)
ROWS = [
    *sweep(("vit-t", "vit-s", "vmamba-t"), (224, 512, 1024, 2048), oom_from={"vmamba-t": 2048}),
    cell("swin-s", 512, axes={"llm": HOSTILE}),
    cell("vit-t", "320x448"),
    cell("swin-s", 1024, status=Status.ERROR, message=HOSTILE, axes={"llm": HOSTILE}),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = known(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        for flag in (*FLAGS, f"user-data-dir={own}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    manifest = {"command": HOSTILE, "environment": {"gpu": HOSTILE}, "spec": {"name": HOSTILE}}
    write_report([Run(HOSTILE, frame(ROWS), samples(ROWS), manifest)], folder, ["html"])
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, report: str) -> webdriver.Chrome:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(report)
    return browser


def labels(page: webdriver.Chrome, panel: str) -> list[str]:
    """The lines that a panel draws, by what they say when hovered."""
    script = "return document.getElementById(arguments[0]).data.map((t) => t.text[0].split('<br>')[0])"
    return page.execute_script(script, panel)


def hover(page: webdriver.Chrome, panel: str, trace: int, point: int) -> str:
    """What a panel says when the mouse is put on a point."""
    div = page.find_element(By.ID, panel)
    place = """
        const [div, trace, point] = arguments;
        div.scrollIntoView({block: "center"});
        const {_fullLayout: {xaxis, yaxis}, data} = div, box = div.getBoundingClientRect();
        return [xaxis._offset + xaxis.d2p(data[trace].x[point]) - box.width / 2,
                yaxis._offset + yaxis.d2p(data[trace].y[point]) - box.height / 2].map(Math.round)"""
    x, y = page.execute_script(place, div, trace, point)
    ActionChains(page, duration=50).move_to_element_with_offset(div, x, y).pause(0.3).perform()
    return " ".join(text.text for text in div.find_elements(By.CSS_SELECTOR, ".hovertext"))


def test_the_page_is_quiet_and_loads_nothing(page: webdriver.Chrome, report: str) -> None:
    page.find_element(By.ID, "scale").click()
    page.find_element(By.ID, "theme").click()
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert report in asked
    assert [url for url in asked if url != report and not url.startswith("data:")] == []


def test_hovering_tells_the_value_and_its_interval(page: webdriver.Chrome) -> None:
    trace = labels(page, "panel-c").index("ViT-S · tiny")
    row = next(row for row in ROWS if row.axes["backbone"] == "vit-s" and row.axes["resolution"] == "1024")
    said = hover(page, "panel-c", trace, 2)
    assert "ViT-S · tiny" in said
    assert f"1024²: {show(Kind.SECONDS, row.end_to_end_s).split()[0]} (" in said
    low, high = said.split("(")[1].split(")")[0].split(" to ")
    assert float(low) < known(row.end_to_end_s) * 1000 < float(high)


def test_hovering_a_cross_tells_where_memory_ended(page: webdriver.Chrome) -> None:
    drawn = page.execute_script("return document.getElementById('panel-a').data.map((t) => t.line.dash)")
    assert hover(page, "panel-a", drawn.index("dot"), 1).endswith("2048²: out of memory in vision")


def test_a_family_and_a_line_can_be_hidden_and_shown_again(page: webdriver.Chrome) -> None:
    def press(text: str) -> None:
        buttons = page.find_elements(By.CSS_SELECTOR, "#legend button")
        next(button for button in buttons if button.text == text).click()

    every = labels(page, "panel-f")
    assert {"ViT-T · tiny", "ViT-S · tiny", "VMamba-T · tiny"} < set(every)
    press("ViT")
    assert labels(page, "panel-f") == [label for label in every if not label.startswith("ViT")]
    press("ViT-S · tiny")
    assert labels(page, "panel-f") == [label for label in every if label != "ViT-T · tiny"]
    press("ViT-T · tiny")
    assert labels(page, "panel-f") == every


def test_axes_turn_logarithmic_and_back(page: webdriver.Chrome) -> None:
    script = "return ['xaxis', 'yaxis'].map((a) => document.getElementById('panel-d')._fullLayout[a].type)"
    assert page.execute_script(script) == ["log", "log"]
    for kind in ("linear", "log"):
        page.find_element(By.ID, "scale").click()
        assert page.execute_script(script) == [kind, kind]


def test_names_of_resolutions_are_level_and_apart(page: webdriver.Chrome) -> None:
    script = """return [...document.querySelectorAll(arguments[0] + ' .xtick text')].map((text) => {
        const {left, right} = text.getBoundingClientRect();
        return [left, right, text.getAttribute('transform') || ''];})"""
    for chart in ("#panel-a", "#panel-f", "#stacks"):
        edge = page.execute_script("return document.querySelector(arguments[0]).clientWidth", chart)
        labels = page.execute_script(script, chart)
        assert len(labels) > 2
        assert not [turned for *_, turned in labels if "rotate" in turned and "rotate(0" not in turned]
        assert all(a[1] < b[0] for a, b in itertools.pairwise(labels))
        assert labels[-1][1] - labels[0][0] < edge


def test_charts_have_the_width_of_the_window_and_of_paper(page: webdriver.Chrome) -> None:
    script = """return ['panel-c', 'stacks', 'fits-bytes'].map((id) => {
        const div = document.getElementById(id);
        return [div.clientWidth, Number(div.querySelector('svg').getAttribute('width'))];})"""
    theme = "return document.documentElement.dataset.theme"
    try:
        page.find_element(By.ID, "theme").click()
        page.set_window_size(800, 1000)
        wait = WebDriverWait(page, 5)
        wait.until(lambda page: all(width == drawn for width, drawn in page.execute_script(script)))
        on_screen = page.execute_script(script)
        page.execute_script("dispatchEvent(new Event('beforeprint'))")
        on_paper = page.execute_script(script)
        assert all(width == drawn for width, drawn in on_paper)
        assert on_paper != on_screen
        assert page.execute_script(theme) == "light"
        page.execute_script("dispatchEvent(new Event('afterprint'))")
        assert page.execute_script(script) == on_screen
        assert page.execute_script(theme) == "dark"
    finally:
        page.set_window_size(1400, 1000)


def test_fitted_curves_follow_their_controls(page: webdriver.Chrome) -> None:
    def drawn(chart: str) -> tuple[str, str, str, list[str]]:
        script = """const {_fullLayout: {title, xaxis, yaxis}, data} = document.getElementById(arguments[0]);
            return [title.text, xaxis.type, yaxis.type, data.map((t) => t.mode)]"""
        return tuple(page.execute_script(script, chart))

    modes = ["lines", "lines", "markers"]  # the interval, the curve, the points
    assert drawn("fits-seconds") == ("End-to-end", "log", "log", modes * 3)
    assert drawn("fits-bytes") == ("Peak allocated", "log", "log", modes * 3)
    page.find_element(By.CSS_SELECTOR, "#fits-figure option:first-child").click()
    page.find_element(By.ID, "fits-scale").click()
    page.find_element(By.CSS_SELECTOR, "#legend .name").click()
    assert drawn("fits-seconds") == ("Host vision", "linear", "linear", modes)
    assert drawn("fits-bytes") == ("Peak allocated", "linear", "linear", modes)
    assert "1024², 4,096 tokens: " in hover(page, "fits-seconds", 2, 2)


def test_hostile_text_is_shown_and_nothing_more(page: webdriver.Chrome) -> None:
    assert page.title == f"{HOSTILE} · vlmprof"
    assert page.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert page.execute_script("return document.querySelectorAll('img, b').length") == 0
    assert page.execute_script("return document.scripts.length") == 3
    hostile = next(i for i, label in enumerate(labels(page, "panel-c")) if "script" in label)
    assert HOSTILE in hover(page, "panel-c", hostile, 0)
    assert page.title.endswith("· vlmprof")
