"""Small VLMs of four architectures from transformers in a sweep, through the command line."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.helpers.commands import vlmprof
from tests.helpers.small_vlms import internvl, llava, qwen2_5_vl, smolvlm

STAGES = ("preprocess", "vision", "connector", "prefill")
MODELS = (llava, qwen2_5_vl, smolvlm, internvl)

pytestmark = pytest.mark.slow

Swept = tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]
"""How the sweep ended, and its rows."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("whole")
    for make in MODELS:
        make().save_pretrained(folder / make.__name__)
    names = ", ".join(f'"hf:./{make.__name__}"' for make in MODELS)
    (folder / "mine.toml").write_text(
        f'[axes]\nvlm = [{names}]\nresolution = [56, 112, "112x56"]\ndtype = "float32"\nbatch_size = 2\n'
        "[fixed]\nwarm_up = 1\niterations = 2\nprompt_tokens = 3\n"
        'processor = "one-piece"\n'
    )
    ended = vlmprof(folder, "sweep", "mine.toml", "--out", "run")
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in (folder / "run" / "rows.jsonl").read_text().splitlines()]
    return ended, rows


def test_every_stage_is_timed_and_the_parts_fit_into_the_whole(run: Swept) -> None:
    measured = [row for row in run[1] if row["status"] == "ok"]
    assert len(measured) == 10
    for row in measured:
        times = [row[f"host_{stage}_s"] for stage in STAGES]
        assert all(seconds > 0 for seconds in times)
        assert sum(times) <= row["end_to_end_s"]
        weights = [row[f"weight_{stage}_bytes"] for stage in STAGES[1:]]
        assert sum(weights) == row["weight_bytes"]
        assert all(weights)
        assert row["warnings"] == [] or "not within" in row["warnings"][0]


def test_visual_tokens_and_names(run: Swept) -> None:
    tokens = {(row["backbone"], row["resolution"]): row["visual_tokens"] for row in run[1]}
    assert tokens == {
        ("llava", "56"): 16, ("llava", "112x56"): 32, ("llava", "112"): 64,
        ("qwen2_5_vl", "56"): 4, ("qwen2_5_vl", "112x56"): 8, ("qwen2_5_vl", "112"): 16,
        ("smolvlm", "56"): 4, ("smolvlm", "112x56"): None, ("smolvlm", "112"): 16,
        ("internvl", "56"): 4, ("internvl", "112x56"): None, ("internvl", "112"): 16,
    }  # fmt: skip
    assert {row["llm"] for row in run[1]} == {"llama", "qwen2_5_vl_text", "qwen2"}
    skipped = [row["message"] for row in run[1] if row["status"] == "skipped"]
    assert skipped == [
        f"{name} does not accept 112x56; the nearest accepted size is 56 or 112; or use fit pad"
        for name in ("smolvlm", "internvl")
    ]
    assert "qwen2_5_vl" in run[0].stdout
