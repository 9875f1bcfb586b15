"""User mistakes: one clear line, exit code 2, nothing measured and nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.commands import vlmprof

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "quick", "--backbone", "vmanba-t"], "unknown backbone 'vmanba-t'; did you mean vmamba-t"),
        (
            ["sweep", "quick", "--backbone", "vit-t", "--resolution", "230"],
            "nearest accepted size is 224 or 240",
        ),
        (["sweep", "quick", "--resolution", "big"], "write 512, or 1333x800"),
        (["sweep", "quick", "--iterations", "0"], "iterations: '0' is not an integer of at least 1"),
        (["sweep", "quick", "--dtype", "float8"], "is not one of float32, bfloat16, float16"),
        (["sweep", "quick", "--image", "nothing.jpg"], "image nothing.jpg cannot be read"),
        (["sweep", "quick", "--image", "text.jpg"], "image text.jpg cannot be read"),
        (["sweep", "quick", "--weights", "nothing.pth"], "weights: there is no file nothing.pth"),
        (["sweep", "quick", "--vlm", "hf:nothing"], "there is no file nothing"),
        (["sweep", "quick", "--memory-limit", "lots"], "write it like 24GiB"),
        (["sweep", "quick", "--retry", "everything"], "'everything' is not one of oom, error, timeout"),
        (["sweep", "quik"], "did you mean quick"),
        (["sweep", "misspelt.toml"], "'resolutoin'; did you mean resolution"),
        (["sweep", "quick", "--out", "text.jpg"], "cannot write the run folder"),
        (["plan", "quick", "--llm", "vicuna7b"], "vicuna-7b"),
        (["plot", "nowhere"], "not a run folder"),
        pytest.param(
            ["sweep", "quick", "--device", "toaster"],
            "torch does not know device 'toaster'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "misspelt.toml").write_text('[axes]\nbackbone = "vit-t"\nresolutoin = 224\n')
    before = sorted(tmp_path.iterdir())
    ended = vlmprof(tmp_path, *words)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_help_names_every_choice_and_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmprof.fields import AXES, SETTINGS

    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(vlmprof(tmp_path, "sweep", "--help").stdout.replace("│", " ").split())
    for words in (
        "One of eager (default), compile, graphs. Repeatable.",
        "Images per call (default: 1). Repeatable.",
        "(default: adaptive, or fixed with --warm-up or --iterations)",
        "Seed for weights, prompt and generated image (default: 0).",
        "to measure one cell (default: 15s).",
        "how long the GPU is busy (default: on).",
        "that ran out of memory (default: off).",
    ):
        assert words in shown
    choices = [choice for field in (*AXES.values(), *SETTINGS.values()) for choice in field.choices]
    assert {"math", "triton", "cold", "through-tap", "letterbox", "freed", "decode"} <= set(choices)
    assert [choice for choice in choices if choice not in shown] == []


@pytest.mark.slow
def test_a_gpu_asked_for_where_there_is_none(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    ended = vlmprof(tmp_path, "sweep", "kuo2026-fig4", "--backbone", "vit-t")
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("this machine has no accelerator; use --device auto")
    assert not (tmp_path / "runs").exists()


def test_plan_prints_cells_tokens_and_reasons(tmp_path: Path) -> None:
    ended = vlmprof(
        tmp_path, "plan", "quick", "--backbone", "vit-t", "--backbone", "vmamba-t", "--resolution", "1333x800"
    )
    assert ended.returncode == 0
    assert "4,200" in ended.stdout
    assert "vit-t does not accept 1333x800; the nearest accepted size is 1328x800 or 1344x800" in ended.stdout
    assert "1 cells to run, 1 skipped" in ended.stdout
    padded = vlmprof(
        tmp_path, "plan", "quick", "--backbone", "vitdet-b", "--resolution", "1333x800",
        "--resolution", "1024", "--fit", "pad",
    )  # fmt: skip
    assert "4,200" in padded.stdout
    assert "4,096" in padded.stdout
    assert "2 cells to run, 0 skipped" in padded.stdout


@pytest.mark.slow
def test_a_wheel_holds_everything(tmp_path: Path) -> None:
    """Built as a user would build it; the shipped sweeps and data come with it."""
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("vlmprof", "kernels", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", "..", "."],
        cwd=source, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import vlmprof, vlmprof.kernels;"
        "assert vlmprof.__file__.startswith(sys.argv[1]), vlmprof.__file__;"
        "assert vlmprof.kernels.__file__.startswith(sys.argv[1]), vlmprof.kernels.__file__;"
        "from vlmprof.spec import load_spec, shipped_specs; print(*shipped_specs());"
        "load_spec('quick'); from vlmprof.analysis.reference import load_reference; load_reference('kuo2026')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "quick" in ended.stdout
    for name in ("__init__.py", "common/tuned/h200.json"):
        assert (target / "vlmprof/kernels" / name).exists()


def test_standard_error_has_only_our_own_lines_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import logging, warnings\n"
        "from torch import nn\n"
        "from vlmprof.backbones import backbone\n"
        "log = logging.getLogger('somebody')\n"
        "log.addHandler(logging.StreamHandler())\n"
        "warnings.warn('spelled as of old', FutureWarning)\n"
        "log.warning('deprecated')\n"
        "@backbone(embed_dim=8, stride=32, family='Noisy', size='S')\n"
        "def small():\n"
        "    return nn.Conv2d(3, 8, 32, 32)\n"
    )
    words = ("plan", "quick", "--backbone", "noisy:small", "--resolution", "224")
    quiet = vlmprof(tmp_path, *words)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    told = vlmprof(tmp_path, "-v", *words)
    assert told.returncode == 0
    assert {"deprecated", "FutureWarning: spelled as of old"} <= {
        line.rpartition("vlmprof: ")[2] for line in told.stderr.splitlines()
    }
    assert told.stdout == quiet.stdout
