"""Sweeps over the precision of the LLM, from the command line to rows, tables and refusals."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.commands import only_line, vlmprof
from vlmprof.execution.processes import call_in_process

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install 'vlmprof[quant]'"
)
SMALL = ("quick", "--backbone", "vit-t", "--resolution", "32")
QUICKLY = ("--warm-up", "1", "--iterations", "2", "--new-tokens", "2", "--no-profile", "--device", "cpu")
STAGES = ("--stages", "vision", "--stages", "connector", "--stages", "prefill", "--stages", "decode")


def precisions(*names: str) -> list[str]:
    return [word for name in names for word in ("--llm-precision", name)]


@needs_torchao
@pytest.mark.slow
def test_every_precision_of_a_cpu_is_measured_and_fp8_skipped(tmp_path: Path) -> None:
    names = ("as-dtype", "int8-weight", "int8-dynamic", "int4-weight", "fp8")
    command = ("sweep", *SMALL, *precisions(*names), *QUICKLY, *STAGES, "--share-llm", "--out", "run")
    ended = vlmprof(tmp_path, *command)
    assert ended.returncode == 0, ended.stderr
    written = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    rows = {row["llm_precision"]: row for row in map(json.loads, written)}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(names, "ok"), "fp8": "skipped"
    }  # fmt: skip
    assert "compute capability 8.9" in rows["fp8"]["message"]
    assert {row["llm_shared_from"] for row in rows.values()} == {None}
    # 6 layers of 1,769,472 weights in 3,968 rows, of float32 without quantization
    linears, scales = 6 * 1_769_472, 6 * 3_968 * 5
    plain = rows["as-dtype"]["weight_prefill_bytes"]
    for name in ("int8-weight", "int8-dynamic"):
        assert rows[name]["weight_prefill_bytes"] == plain - 4 * linears + linears + scales
    assert rows["int4-weight"]["weight_prefill_bytes"] == plain - 4 * linears + linears // 2 + linears // 16
    assert rows["as-dtype"]["backends"] == {}
    by = f"of torchao {version('torchao')}"
    assert rows["int8-dynamic"]["backends"] == {"llm_linear": f"Int8Tensor {by}"}
    for name in names[1:4]:
        words = " ".join(rows[name]["warnings"])
        assert "counted" not in words
        assert "NaN" not in words
        assert ("saves memory rather than time" in words) == (name == "int8-weight")
        assert ("without vector instructions" in words) == (name == "int4-weight")
        assert rows[name]["counted_decode_flops"] >= rows["as-dtype"]["counted_decode_flops"]
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["environment"]["packages"]["torchao"] == version("torchao")
    assert "llm precision" in ended.stdout
    report = vlmprof(tmp_path, "report", "run")
    assert report.returncode == 0, report.stderr
    assert "ViT-T · LLM int8-weight" in (tmp_path / "run" / "report.md").read_text()
    resumed = vlmprof(tmp_path, *command)
    assert "5 of 5 cells were done before" in resumed.stderr


@pytest.mark.slow
@needs_torchao
def test_the_fork_server_leaves_torchao_to_its_forks() -> None:
    """torchao, which transformers imports, touches the GPU as it is imported: no fork could use it then."""
    loaded = "[name in __import__('sys').modules for name in ('transformers', 'torchao')]"
    assert call_in_process("builtins:eval", (loaded,)).value == [True, False]
    found = "__import__('importlib.util').util.find_spec('torchao') is not None"
    assert call_in_process("builtins:eval", (found,)).value is True


def test_a_precision_that_the_device_lacks_is_refused_by_the_plan(tmp_path: Path) -> None:
    ended = vlmprof(tmp_path, "plan", *SMALL, *precisions("fp8"), "--device", "cpu")
    assert ended.returncode == 2
    assert only_line(ended) == (
        "vlmprof: llm_precision fp8 needs a GPU of compute capability 8.9 or higher; "
        "on cpu, use int8-weight, int8-dynamic or int4-weight"
    )
    partly = vlmprof(tmp_path, "plan", *SMALL, *precisions("as-dtype", "fp8"), "--device", "cpu")
    assert partly.returncode == 0
    assert "1 cells to run, 1 skipped" in partly.stdout


def test_whole_vlms_keep_their_own_precision(tmp_path: Path) -> None:
    ended = vlmprof(tmp_path, "plan", "quick", "--vlm", "hf:some/model", *precisions("int8-weight"))
    assert ended.returncode == 2
    assert "leave out llm_precision" in only_line(ended)


def test_without_torchao_sweeps_are_refused_and_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    wanted = (*SMALL, *precisions("int8-weight"), "--device", "cpu")
    needed = "vlmprof: llm_precision int8-weight needs torchao: pip install 'vlmprof[quant]'"
    for command in ("sweep", "frontier"):
        memory = ("--memory", "2GiB") if command == "frontier" else ()
        words = wanted if command == "sweep" else wanted[1:]
        llm = () if command == "sweep" else ("--llm", "llama-23m")
        ended = vlmprof(tmp_path, command, *words, *llm, *memory, "--out", "run")
        assert (ended.returncode, only_line(ended)) == (2, needed)
    assert not (tmp_path / "run").exists()
    assert vlmprof(tmp_path, "plan", *wanted).returncode == 0
    estimated = vlmprof(tmp_path, "estimate", *wanted, "--json")
    assert estimated.returncode == 0, estimated.stderr


def test_what_a_data_sheet_lacks_is_refused_by_the_estimate(tmp_path: Path) -> None:
    ended = vlmprof(tmp_path, "estimate", *SMALL, *precisions("fp8"), "--gpu", "a100")
    assert ended.returncode == 2
    assert "NVIDIA A100 SXM 80 GB has no rate for float8_e4m3fn" in only_line(ended)
