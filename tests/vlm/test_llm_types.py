"""Every causal language model that transformers knows, made small: counted right, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.helpers.tiny_llms import tiny_config, write
from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.settings import StageName
from vlmprof.spec import build_spec
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.llm_catalog import facts
from vlmprof.vlm.model import VLM, create_vlm
from vlmprof.vlm.workload import Workload

TOKENS = 16
STAGES: tuple[StageName, ...] = ("vision", "connector", "prefill")
KNOWN = transformers.__version__.startswith("5.24.")
REFUSED = frozenset(
    (
        *("blt", "cpmant", "deepseek_v4", "gemma4", "gemma4_text", "reformer", "xlm", "xlnet"),
        # at their defaults transformers does not build these, or does not run them
        *(
            "cohere_compass_text",
            "gemma4_assistant",
            "gemma4_unified_assistant",
            "musicgen",
            "musicgen_melody",
        ),
        *("qwen4_exp", "qwen4_exp_text", "xmod"),
        # its text part names layers that a small one lacks; `dots3_note_text` is the same decoder
        "dots3_note",
    )
)
PREFILL_ALONE = frozenset(("openai-gpt", "recurrent_gemma", "blenderbot", "xlstm"))
"""They keep no state, or transformers raises an error where they go on from it."""
NEEDS_TIMM = frozenset(("gemma3n",))
DRAWN = frozenset(("longcat_flash",))
"""Some of whose experts compute nothing, so that FLOPs depend on the router."""


def grouped(a: tuple[int, ...], b: tuple[int, ...], *_: object, **__: object) -> int:
    """FLOPs of a product of experts, which torch's counter does not know."""
    return 2 * a[0] * a[1] * b[-1]


def flops_of(call: object, *inputs: object) -> int:
    """By torch's counter, on a model that really runs."""
    known = {torch.ops.aten._grouped_mm: grouped}
    counter = FlopCounterMode(display=False, custom_mapping=known)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        call(*inputs)  # type: ignore[operator]
    return counter.get_total_flops()


def workload(llm: str, *stages: StageName) -> Workload:
    return Workload(
        "vit-t", llm, 64, 64, dtype="float32", prompt_tokens=1, new_tokens=1, stages=(*STAGES, *stages)
    )


def refusals(llm: str) -> list[str]:
    """What plan, estimate and sweep say, where they refuse."""
    said = []
    spec = {"axes": {"backbone": "vit-t", "resolution": 64, "llm": llm}}
    for attempt in (
        lambda: make_plan(build_spec(spec, {}, "t")),
        lambda: count(workload(llm)),
        lambda: create_vlm(workload(llm)),
    ):
        try:
            attempt()
        except UserError as refusal:
            said.append(str(refusal))
    return said


def embeddings(vlm: VLM, llm: str, seed: int) -> Tensor:
    return torch.randn(1, TOKENS, facts(llm).hidden_size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_every_type_is_counted_right_or_refused(model_type: str, tmp_path: Path) -> None:
    try:
        config = tiny_config(model_type)
    except Exception:  # transformers' own defaults do not go together
        config = {"model_type": model_type}
    llm = write(config, tmp_path / "llm")
    said = refusals(llm)
    if said:
        assert len(said) == 3, said
        assert not any("\n" in line for line in said)
        assert model_type in REFUSED | NEEDS_TIMM or not KNOWN, said
        return
    assert model_type not in REFUSED or not KNOWN
    vlm = create_vlm(workload(llm))
    first, second = embeddings(vlm, llm, 0), embeddings(vlm, llm, 1)
    with torch.inference_mode():
        assert not torch.equal(vlm.prefill(first), vlm.prefill(second))
    tolerance = 0.1 if model_type in DRAWN else 0.0
    real = flops_of(vlm.prefill, first)
    assert count(workload(llm)).stages["prefill"].matrix_flops == pytest.approx(real, rel=tolerance)
    in_chunks = replace(workload(llm), prefill_chunk=5)
    if facts(llm).chunks:
        assert count(in_chunks).stages["prefill"].matrix_flops > 0
        chunked = create_vlm(in_chunks)
        with torch.inference_mode():
            whole, last = vlm.prefill(first), chunked.prefill(first)
        scale = float(whole.abs().max())
        torch.testing.assert_close(last, whole[:, -last.shape[1] :], rtol=1e-3, atol=1e-4 * scale)
    else:
        with pytest.raises(UserError, match="cannot prefill in chunks"):
            count(in_chunks)
    if model_type in PREFILL_ALONE:
        with pytest.raises(UserError):
            count(workload(llm, "decode"))
        return
    with torch.inference_mode():
        context = prefill_cached(vlm, first)
    counted = count(workload(llm, "decode")).stages["decode"].matrix_flops
    assert counted == pytest.approx(flops_of(lambda: decode(vlm, context, 1)), rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_type", ["gpt2", "mpt", "nemotron", "jetmoe", "opt", "rembert", "electra", "ministral"]
)
def test_a_configuration_of_a_type_alone_is_read_as_transformers_fills_it_in(
    model_type: str, tmp_path: Path
) -> None:
    llm = write({"model_type": model_type}, tmp_path / "llm")
    known = facts(llm)
    model = transformers.CONFIG_MAPPING[model_type]()
    assert known.vocab_size == model.vocab_size
    widths = {"opt": "word_embed_proj_dim", "rembert": "input_embedding_size", "electra": "embedding_size"}
    assert known.hidden_size == getattr(model, widths.get(model_type, "hidden_size"))
    assert known.layers == model.num_hidden_layers
    assert known.parameters
    assert count(workload(llm)).stages["prefill"].matrix_flops > 0


@pytest.mark.parametrize("model_type", ["mixtral", "gpt2", "jetmoe", "gpt_oss", "mamba2", "gemma2"])
def test_a_few_types_quickly(model_type: str, tmp_path: Path) -> None:
    test_every_type_is_counted_right_or_refused(model_type, tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "dbrx"}, "cannot build it"),
        ({"model_type": "deepseek_v2"}, "does not run with this configuration"),
        ({"model_type": "clip"}, "no causal language model"),
        ({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 7}, "multiple|divisible"),
        ({"model_type": "cpmant"}, "takes token ids"),
    ],
)
def test_what_cannot_run_is_refused_alike(config: dict[str, object], said: str, tmp_path: Path) -> None:
    llm = write(config, tmp_path / "llm")
    found = refusals(llm)
    assert len(found) == 3
    for line in found:
        assert "\n" not in line
        with pytest.raises(UserError, match=said):
            raise UserError(line)


def test_all_logits_where_there_is_no_choice(tmp_path: Path) -> None:
    llm = write(tiny_config("xlstm"), tmp_path / "llm")
    spec = {"axes": {"backbone": "vit-t", "resolution": 64, "llm": llm}, "fixed": {"logits": "last"}}
    with pytest.raises(UserError, match="use logits all"):
        make_plan(build_spec(spec, {}, "t"))
