"""Prefill in chunks against one pass: logits, further tokens, FLOPs and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_llms import tiny_config, write
from vlmprof.cost.count import count
from vlmprof.settings import Logits
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.llm_catalog import facts
from vlmprof.vlm.model import VLM, create_vlm
from vlmprof.vlm.workload import Workload

POSITIONS = 26
CHUNKS = (1, 7, 13, 26, 100)
"""Of one position, odd, a divisor, all of them, and more than there are."""
LAST = {1: 1, 7: 5, 13: 13, 26: 26, 100: 26}
"""Positions of the last chunk."""


def llm_of(llm: str, dtype: str = "float32", seed: int = 0) -> tuple[VLM, Tensor]:
    """A VLM with two sequences of 24 visual tokens, and two of the prompt."""
    vlm = create_vlm(Workload("vit-t", llm, 64, 96, dtype=dtype, prompt_tokens=2))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(2, 24, facts(llm).hidden_size, generator=generator)
    return vlm, embeddings.to(getattr(torch, dtype))


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mixtral", "gpt2", "qwen3", "ministral"])
def test_the_logits_are_those_of_one_pass(model_type: str, tmp_path: Path) -> None:
    """ministral and gemma2 have windows, which transformers' cache cuts its keys and values to."""
    config = tiny_config(model_type)
    windows = {"sliding_window": 5} if config.get("sliding_window") else {}
    vlm, embeddings = llm_of(write({**config, **windows}, tmp_path / "llm"))
    with torch.inference_mode():
        whole = vlm.prefill(embeddings)
        for chunk in CHUNKS:
            vlm.prefill_chunk = chunk
            logits = vlm.prefill(embeddings)
            torch.testing.assert_close(logits, whole[:, -LAST[chunk] :], rtol=1e-4, atol=1e-5)


def test_the_error_is_that_of_the_dtype() -> None:
    vlm, embeddings = llm_of("llama-23m", "bfloat16")
    exact, _ = llm_of("llama-23m", "bfloat16")
    exact.language.double()
    with torch.inference_mode():
        truth, whole = exact.prefill(embeddings.double())[:, -1], vlm.prefill(embeddings)[:, -1]
        error = (whole - truth).abs().max()
        for chunk in (1, 7):
            vlm.prefill_chunk = chunk
            assert (vlm.prefill(embeddings)[:, -1] - truth).abs().max() < 4 * error


def test_decoding_goes_on_from_chunks_as_from_one_pass() -> None:
    vlm, embeddings = llm_of("llama-23m")
    with torch.inference_mode():
        whole = decode(vlm, prefill_cached(vlm, embeddings), 3)
        vlm.prefill_chunk = 7
        context = prefill_cached(vlm, embeddings)
        layers, hidden, keys_and_values, float32 = 6, 384, 2, 4
        assert context.state_bytes() == 2 * POSITIONS * layers * hidden * keys_and_values * float32
        chunked = decode(vlm, context, 3)
    assert torch.equal(chunked.token, whole.token)
    assert whole.logits is not None
    torch.testing.assert_close(chunked.logits, whole.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("logits", ["all", "last"])
@pytest.mark.parametrize("chunk", [7, 13, 100])
def test_flops_are_those_of_torchs_counter(chunk: int, logits: Logits) -> None:
    vlm, embeddings = llm_of("llama-23m")
    vlm.prefill_chunk, vlm.logits = chunk, logits
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        output = vlm.prefill(embeddings)
    asked = Workload(
        "vit-t", "llama-23m", 64, 96, dtype="float32", prompt_tokens=2, batch_size=2,
        logits=logits, prefill_chunk=chunk,
    )  # fmt: skip
    prefill = count(asked).stages["prefill"]
    assert prefill.matrix_flops == counter.get_total_flops()
    assert prefill.output_bytes == output.nbytes


def test_the_peak_is_the_cache_and_one_chunk() -> None:
    """Against one pass that keeps the cache for decoding, as every engine does."""
    asked = Workload(
        "vit-t", "llama-23m", 512, 512, dtype="float32", stages=("vision", "connector", "prefill", "decode")
    )
    whole, halves, chunks = (
        count(replace(asked, prefill_chunk=n)).stages["prefill"] for n in (None, 512, 64)
    )
    cache = 1024 * 6 * 384 * 2 * 4
    assert whole.kv_cache_bytes == halves.kv_cache_bytes == chunks.kv_cache_bytes == cache
    logits = 32000 * 4
    embeddings = 1024 * 384 * 4
    assert whole.peak_activation_bytes > 1024 * logits + cache + embeddings
    assert cache + embeddings + 64 * logits < chunks.peak_activation_bytes
    assert chunks.peak_activation_bytes < cache + embeddings + 64 * logits + cache / 4
    assert chunks.peak_activation_bytes < halves.peak_activation_bytes < whole.peak_activation_bytes
    alone = count(replace(asked, prefill_chunk=64, stages=("vision", "connector", "prefill")))
    assert alone.stages["prefill"].peak_activation_bytes == chunks.peak_activation_bytes
