"""Every command and every example in the README, run with smaller models.

The two commands of its first section set up an environment; `.ci/run` runs those.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.helpers.commands import vlmprof
from tests.helpers.synthetic_runs import samples, sweep, write_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SMALLER = {
    '["vmamba-t", "vit-s", "vit-b"]': '["vmamba-t", "vit-t"]',
    '[224, 512, 1024, "1333x800"]': '[32, "48x32"]',
    "vicuna-7b": "llama-23m",
    "[fixed]\n": "[fixed]\nwarm_up = 0\niterations = 1\n",
    "--resolution 640 --iterations 20": "--resolution 32 --iterations 2",
    "--resolution 224 --resolution 448": "--resolution 32 --resolution 64 --warm-up 0 --iterations 1",
    "sweep --memory-limit 24GiB": "sweep quick --memory-limit 24GiB --resolution 32 --iterations 1",
    "--memory 16GiB --memory 24GiB": "--memory 200MiB --memory 300MiB --largest 256 --step 64",
    "recommend deployed-h200": "recommend mine.toml",
    "estimate fastvlm": "estimate mine.toml",
    "vlmprof kernels verify": "vlmprof kernels verify --dtype float32 --backend reference",
}
"""What the README says for a GPU, and what a test types in its place."""

AXES = {"llm": "vicuna-7b", "dtype": "bfloat16", "levels": "through-tap", "connector": "mlp2"}
SETUP = ("pip install", "python -m pytest")


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(language: str, title: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", section(title), re.S | re.M)
    return [block for written, block in found if written == language]


def commands(title: str) -> list[str]:
    """The commands of a section, comments left out, as lines."""
    lines = [line.split(" #")[0].strip() for block in blocks("", title) for line in block.splitlines()]
    return [line for line in lines if line.startswith("vlmprof ")]


def smaller(text: str) -> str:
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ended = vlmprof(folder, *shlex.split(smaller(command))[1:])
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
    return ended


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's own files, and the runs that its later sections speak of."""
    (specification,) = blocks("toml", "Your own sweep")
    (module,) = blocks("python", "A backbone of your own")
    (tmp_path / "mine.toml").write_text(smaller(specification))
    (tmp_path / "mine.py").write_text(module)
    (tmp_path / "mine.csv").write_text("backbone,accuracy\nvmamba-t,61\nvit-t,57\n")
    sizes = (224, 512, 1024, "1333x800")
    rows = sweep(("vmamba-t", "vit-s", "vit-b"), sizes, axes=AXES, energy_per_image_j=9.0)
    for name in ("mine", "before", "after"):
        write_run(tmp_path / "runs" / name, rows, samples(rows))
    return tmp_path


def test_every_command_is_in_a_section_that_is_tested() -> None:
    tested = (
        "Reading the figure",
        "Your own sweep",
        "A backbone of your own",
        "From rows to decisions",
        "Choosing",
    )
    everywhere = re.findall(r"^vlmprof .*", README, re.M)
    assert len(everywhere) == sum(len(commands(title)) for title in tested) > 15
    typed = [line for block in blocks("", "Two commands") for line in block.splitlines()]
    assert all(line.startswith(SETUP) for line in typed)


def test_the_constraints_that_the_test_command_names_are_there() -> None:
    (path,) = re.findall(r"pip install -e \S+ -c (\S+) &&", README)
    pins = dict(line.split("==") for line in (ROOT / path).read_text().splitlines() if line[0] != "#")
    assert {"torch", "triton", "transformers", "pytest", "ruff", "mypy"} <= pins.keys()


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Reading the figure", "A backbone of your own"])
def test_the_sweeps_of_a_section(title: str, folder: Path) -> None:
    for command in commands(title):
        assert "six_panel.png" in run(command, folder).stdout


@pytest.mark.slow
def test_a_sweep_of_ones_own(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    for command in commands("Your own sweep"):
        assert run(command, folder).stdout.strip()
    assert (folder / "runs" / "mine" / "six_panel.svg").exists()
    assert (folder / "kuo2026.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("From rows to decisions") + commands("Choosing"))
def test_a_decision(command: str, folder: Path) -> None:
    assert run(command, folder).stdout.strip()


@pytest.mark.slow
def test_the_notebook_example_runs_as_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python", "In a notebook")
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert isinstance(names["figure"], Figure)
    assert (folder / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert {"report.html", "report.md"} <= {path.name for path in (folder / "runs" / "mine").iterdir()}


def test_the_measuring_example_runs_as_written() -> None:
    (example,) = blocks("python", "Measuring your own code")
    names: dict[str, object] = {}
    exec(example, names)
    found: Any = names["found"]
    assert sorted(found.samples) == ["end_to_end_s", "host_square_s", "host_sum_s"]
    assert sum(found.samples["host_square_s"]) > sum(found.samples["host_sum_s"]) > 0
