"""Decoding with VLMs of transformers, against transformers' own greedy generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.commands import vlmprof
from tests.helpers.small_vlms import llava, qwen2_5_vl
from tests.helpers.tiny_vlms import tiny_config
from vlmprof.cost.count import count_cell
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.spec import build_spec
from vlmprof.vlm.decoding import decode_step
from vlmprof.vlm.hf_vlm import support
from vlmprof.vlm.hf_vlm.model import create_hf_vlm
from vlmprof.vlm.hf_vlm.own import own_photo
from vlmprof.vlm.hf_vlm.support import RUN, WITHOUT_DECODING, why_no_decoding

STAGES = ["vision", "connector", "prefill", "decode"]
STEPS = 5
UNUSED = {"qwen2_5_omni_thinker": "mm_token_type_ids", "qwen3_omni_moe_thinker": "mm_token_type_ids"}
"""Inputs that `generate` refuses although the forward pass takes them."""


STILL = {
    "blip": "missing 1 required positional argument: 'pixel_values'",
    "diffusion_gemma": "tokens of a canvas",
    "git": "other tokens than generate",
    "pp_formulanet": "exactly one of encoder_outputs or pixel_values",
}
"""What decoding ends in with a type of `WITHOUT_DECODING`."""


def check_tokens(model_type: str, folder: Path) -> None:
    tiny_config(model_type).save_pretrained(folder)
    name = f"hf:{folder}"
    vlm = create_hf_vlm(name, one_piece=False, logits="last")
    inputs = own_photo(name, (224, 224), "float32", prompt_tokens=5).inputs("cpu")
    inputs.pop(UNUSED.get(model_type, ""), None)
    with torch.inference_mode():
        context = vlm.prefill_cached(inputs)
        cache_bytes = context.state_bytes()
        tokens = [context.token]
        for _ in range(STEPS):
            context = decode_step(vlm, context)
            tokens.append(context.token)
        assert context.logits is not None
        assert context.logits.shape[1] == 1, "tokens of a canvas"
        options: dict[str, Any] = {
            "do_sample": False,
            "max_new_tokens": STEPS + 1,
            "min_new_tokens": STEPS + 1,
        }
        options |= {"forced_eos_token_id": None}
        if (first := inputs.get("decoder_input_ids")) is not None:
            options["decoder_start_token_id"] = int(first[0, 0])
        model: Any = vlm.model
        generated = model.generate(**inputs, **options)[:, -STEPS - 1 :]
    assert torch.equal(torch.cat(tokens, 1), generated), "other tokens than generate"
    assert cache_bytes > 0
    axes = {"vlm": name, "resolution": "224", "dtype": "float32", "prompt_tokens": 5}
    (cell,) = make_plan(spec := build_spec({"fixed": {"stages": STAGES}}, axes, "test"))
    assert count_cell(cell, spec.settings).stages["decode"].kv_cache_bytes == cache_bytes


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(RUN.keys() - {*WITHOUT_DECODING}))
def test_tokens_are_those_of_generate(model_type: str, tmp_path: Path) -> None:
    for package in RUN[model_type]:
        pytest.importorskip(package)
    if why := why_no_decoding(model_type):
        pytest.skip(why)
    check_tokens(model_type, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(WITHOUT_DECODING))
def test_a_type_that_cannot_still_fails_for_its_reason(model_type: str, tmp_path: Path) -> None:
    for package in RUN[model_type]:
        pytest.importorskip(package)
    with pytest.raises(Exception, match=STILL[model_type]):
        check_tokens(model_type, tmp_path)


@pytest.mark.parametrize("make", [llava, qwen2_5_vl])
def test_a_counted_step_is_a_step(make: type, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    name, axes = f"hf:{tmp_path}", {"resolution": "112", "dtype": "float32"}
    fixed = {"stages": ["vision", "connector", "prefill", "decode"], "processor": "one-piece"}
    spec = build_spec(
        {"fixed": {**fixed, "prompt_tokens": 3, "new_tokens": 4}}, {"vlm": name, **axes}, "test"
    )
    (cell,) = make_plan(spec)
    cost = count_cell(cell, spec.settings)
    vlm = create_hf_vlm(name, prompt_tokens=3)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        context = vlm.prefill_cached(vlm.inputs(torch.zeros(1, 3, 112, 112)))
        cache_bytes = context.state_bytes()
        with FlopCounterMode(display=False) as torchs:
            decode_step(vlm, context)
    assert cost.stages["decode"].kv_cache_bytes == cost.stages["prefill"].kv_cache_bytes == cache_bytes
    assert cost.stages["decode"].matrix_flops == pytest.approx(4 * torchs.get_total_flops(), rel=0.03)


@pytest.mark.slow
def test_a_sweep_times_further_tokens(tmp_path: Path) -> None:
    llava().save_pretrained(tmp_path / "llava")
    ran = vlmprof(
        tmp_path, "sweep", "--vlm", "hf:./llava", "--resolution", "56", "--processor", "one-piece",
        "--dtype", "float32", "--warm-up", "0", "--iterations", "2", "--no-profile", "--new-tokens", "3",
        *(word for stage in STAGES for word in ("--stages", stage)), "--out", "run",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    row = json.loads((tmp_path / "run" / "rows.jsonl").read_text())
    assert row["status"] == "ok"
    assert row["new_tokens"] == 3
    assert row["ttft_s"] + 3 * row["tpot_s"] == pytest.approx(row["end_to_end_s"])
    # keys and values of two layers and two heads of 12: 16 visual tokens and three new ones
    assert row["cache_bytes"] == 2 * 2 * 2 * 12 * 4 * (16 + 3)


@pytest.mark.parametrize("model_type", WITHOUT_DECODING)
def test_a_type_that_cannot_is_refused_when_planned(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    spec = build_spec({"fixed": {"stages": STAGES}}, {"vlm": f"hf:{tmp_path}", "resolution": "224"}, "test")
    with pytest.raises(UserError, match=f"stages: {model_type} cannot continue .* leave out decode") as e:
        make_plan(spec)
    assert WITHOUT_DECODING[model_type] in str(e.value)


def test_a_type_that_needs_a_newer_transformers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = []
    for installed in ("5.17.0", "5.24.1.dev0", "6.0.0rc1"):
        monkeypatch.setattr(support, "version", lambda package, installed=installed: installed)
        verdicts.append(why_no_decoding("mllama"))
    assert verdicts == ["transformers 5.24 or newer is needed", None, None]
