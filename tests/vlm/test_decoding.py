"""Cached decoding against the same greedy tokens without a cache."""

from __future__ import annotations

import pytest
import torch

from vlmprof.settings import Logits
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.workload import Workload


@pytest.mark.parametrize(("batch", "prompt_tokens", "logits"), [(1, 0, "all"), (2, 5, "last")])
def test_cached_tokens_are_those_of_plain_forward_passes(
    batch: int, prompt_tokens: int, logits: Logits
) -> None:
    vlm = create_vlm(
        Workload(
            "vit-t", "llama-23m", 32, 48, dtype="float32", prompt_tokens=prompt_tokens, logits=logits, seed=3
        )
    )
    embeddings = vlm.project(vlm.encode_image(torch.randn(batch, 3, 32, 48)))
    sequence, plain = vlm.with_prompt(embeddings), []
    for _ in range(6):
        logits_now = vlm.language(inputs_embeds=sequence, use_cache=False).logits[:, -1:]
        plain.append(logits_now.argmax(-1))
        sequence = torch.cat((sequence, vlm.language.get_input_embeddings()(plain[-1])), dim=1)

    context = prefill_cached(vlm, embeddings)
    cached = [context.token]
    for _ in range(5):
        context = decode(vlm, context, 1)
        cached.append(context.token)
    assert torch.equal(torch.cat(cached, 1), torch.cat(plain, 1))


def test_the_caches_bytes_are_layers_by_heads_by_positions() -> None:
    vlm = create_vlm(Workload("vit-t", "llama-23m", 64, 64, dtype="float32", prompt_tokens=3))
    context = prefill_cached(vlm, vlm.project(vlm.encode_image(torch.randn(1, 3, 64, 64))))
    layers, hidden, both, float32 = 6, 384, 2, 4
    assert context.state_bytes() == layers * hidden * both * float32 * (16 + 3)
    assert decode(vlm, context, 4).state_bytes() == layers * hidden * both * float32 * (16 + 3 + 4)
