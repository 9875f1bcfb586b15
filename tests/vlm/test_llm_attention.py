"""Attention: what transformers chooses where a model has no scaled-dot-product path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from packaging.version import Version
from typer.testing import CliRunner

from vlmprof.cli.app import app
from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.spec import build_spec
from vlmprof.vlm.attention import attention_path
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_catalog import facts
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.workload import Workload

GEMMA2 = {
    "model_type": "gemma2", "sliding_window": 128, "head_dim": 32, "query_pre_attn_scalar": 32,
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.fixture
def gemma2(tmp_path: Path) -> str:
    (tmp_path / "gemma2").mkdir()
    (tmp_path / "gemma2" / "config.json").write_text(json.dumps(GEMMA2))
    return str(tmp_path / "gemma2")


without_fused_gemma2 = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24"),
    reason="seen with 5.17 to give Gemma 2 a scaled-dot-product path, and with 5.24 not to",
)


@without_fused_gemma2
def test_gemma2_is_built_with_the_attention_that_transformers_chooses(gemma2: str) -> None:
    model = create_llm(gemma2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_488_576
    assert attention_path(model) == facts(gemma2).attention == "eager"
    assert attention_path(create_llm("llama-23m", device="meta")) == "sdpa"
    assert attention_path(create_llm("mamba-2.8b", device="meta")) is None


@without_fused_gemma2
@pytest.mark.slow
def test_the_row_says_which_ran(gemma2: str, tmp_path: Path) -> None:
    words = ["--backbone", "vit-t", "--resolution", "64", "--llm", gemma2, "--dtype", "float32"]
    words += ["--warm-up", "1", "--iterations", "2", "--out", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, ["sweep", *words])
    assert shown.exit_code == 0, shown.output
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    assert (row["status"], row["backends"]) == ("ok", {"llm_attention": "eager"})
    assert any("eager attention" in warning for warning in row["warnings"])


@without_fused_gemma2
@pytest.mark.parametrize("asked", ["flash", "efficient", "math"])
def test_a_backend_that_it_does_not_have_is_refused(gemma2: str, asked: str) -> None:
    axes = {"backbone": "vit-t", "resolution": 64, "llm": gemma2, "attention": asked}
    workload = Workload("vit-t", gemma2, 64, 64, attention=asked)  # type: ignore[arg-type]
    for attempt in (
        lambda: make_plan(build_spec({"axes": axes}, {}, "t")),
        lambda: count(workload),
        lambda: create_vlm(workload),
    ):
        with pytest.raises(UserError, match=f"attention {asked}: .*eager.*; use auto"):
            attempt()
