"""Mixtures of experts against formulas by hand: six architectures, prefill and decode, every dtype."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmprof.cost import count_module
from vlmprof.cost.costs import StageCost
from vlmprof.cost.count import count
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.workload import Workload

VOCABULARY, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 160, 64, 4, 2, 16
EXPERTS, CHOSEN, EXPERT_MLP, DENSE_MLP = 8, 2, 24, 96
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "num_hidden_layers": 4,
    "num_experts_per_tok": CHOSEN, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GQA = HIDDEN * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS)
"""Weights of q, k, v and o."""
ROUTED = CHOSEN * 3 * HIDDEN * EXPERT_MLP + HIDDEN * EXPERTS
"""Of the experts that a token meets and of the router."""
GQA_SCORES = HEADS * 2 * HEAD_DIM
"""Multiply–accumulates for a query and a key."""


@dataclass(frozen=True)
class Architecture:
    """A small model and its multiply–accumulates by hand."""

    config: dict[str, Any]
    per_token: int
    """Of all layers' matrices, those of the vocabulary apart."""
    per_score: int
    """Of all layers, for a query and a key."""
    sparse_layers: int = 4
    expanded: int = 0
    """In decoding, for each position in a cache of latents, which newer ones of transformers keep."""
    fixed: Callable[[int], int] = lambda tokens: 0
    """What neither grows by the token nor by the score."""
    rotated: int = HEAD_DIM
    """Dimensions of a head with rotary positions. transformers 5.17 makes their angles by a matrix product,
    with as many FLOPs for each token; later versions multiply elementwise."""


MLA_QK, MLA_V, Q_RANK, KV_RANK, ROTATED = 16 + 8, 16, 20, 12, 8
MLA = (
    HIDDEN * Q_RANK + Q_RANK * HEADS * MLA_QK + HIDDEN * (KV_RANK + ROTATED)
    + KV_RANK * HEADS * (16 + MLA_V) + HEADS * MLA_V * HIDDEN
)  # fmt: skip
SHARED = 3 * HIDDEN * EXPERT_MLP
DENSE = 3 * HIDDEN * DENSE_MLP

LINEAR_HEADS, LINEAR_KEYS, LINEAR_DIM, CONVOLVED, CHUNK = 4, 2, 16, 4, 64
CHANNELS = (2 * LINEAR_KEYS + LINEAR_HEADS) * LINEAR_DIM
LINEAR = HIDDEN * (2 * LINEAR_KEYS * LINEAR_DIM + 3 * LINEAR_HEADS * LINEAR_DIM + 2 * LINEAR_HEADS)


def delta_rule(tokens: int) -> int:
    """Of three gated delta-rule layers: a convolution over each channel, and chunks of 64 positions with
    three products of C²·d and three of C·d². One token is convolved with the state in two positions, and goes
    without products."""
    if tokens == 1:
        return 3 * CHANNELS * CONVOLVED * 2
    chunks = -(-tokens // CHUNK)
    chunk = LINEAR_HEADS * (3 * CHUNK**2 * LINEAR_DIM + 3 * CHUNK * LINEAR_DIM**2)
    return 3 * (CHANNELS * CONVOLVED * (tokens + CONVOLVED - 1) + chunks * chunk)


ARCHITECTURES = {
    "mixtral": Architecture(
        {**COMMON, "num_local_experts": EXPERTS, "intermediate_size": EXPERT_MLP}, 4 * (GQA + ROUTED),
        4 * GQA_SCORES,
    ),
    "qwen3_moe": Architecture(
        {**COMMON, "num_experts": EXPERTS, "moe_intermediate_size": EXPERT_MLP,
         "intermediate_size": DENSE_MLP, "mlp_only_layers": [1]},
        4 * GQA + 3 * ROUTED + DENSE, 4 * GQA_SCORES, sparse_layers=3,
    ),
    "deepseek_v3": Architecture(
        {**{k: v for k, v in COMMON.items() if k != "head_dim"}, "num_key_value_heads": HEADS,
         "n_routed_experts": EXPERTS, "moe_intermediate_size": EXPERT_MLP, "intermediate_size": DENSE_MLP,
         "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
         "q_lora_rank": Q_RANK, "kv_lora_rank": KV_RANK, "qk_rope_head_dim": ROTATED,
         "qk_nope_head_dim": 16, "v_head_dim": MLA_V},
        4 * MLA + 3 * (ROUTED + SHARED) + DENSE, 4 * HEADS * (MLA_QK + MLA_V), sparse_layers=3,
        expanded=4 * KV_RANK * HEADS * (16 + MLA_V), rotated=ROTATED,
    ),
    "gpt_oss": Architecture(
        {**COMMON, "num_local_experts": EXPERTS, "intermediate_size": EXPERT_MLP, "sliding_window": 512},
        4 * (GQA + ROUTED), 4 * GQA_SCORES,
    ),
    "qwen3_next": Architecture(
        {**COMMON, "num_experts": EXPERTS, "moe_intermediate_size": EXPERT_MLP,
         "shared_expert_intermediate_size": EXPERT_MLP, "linear_num_value_heads": LINEAR_HEADS,
         "linear_num_key_heads": LINEAR_KEYS, "linear_key_head_dim": LINEAR_DIM,
         "linear_value_head_dim": LINEAR_DIM, "linear_conv_kernel_dim": CONVOLVED},
        # the queries of full attention come with a gate as wide
        GQA + HIDDEN * HEAD_DIM * HEADS + 3 * LINEAR + 4 * (ROUTED + SHARED + HIDDEN), GQA_SCORES,
        fixed=delta_rule, rotated=HEAD_DIM // 4,
    ),
    "glm4_moe": Architecture(
        {**COMMON, "n_routed_experts": EXPERTS, "moe_intermediate_size": EXPERT_MLP,
         "intermediate_size": DENSE_MLP, "n_shared_experts": 2, "first_k_dense_replace": 2, "n_group": 1,
         "topk_group": 1},
        4 * GQA + 2 * (ROUTED + 2 * SHARED) + 2 * DENSE, 4 * GQA_SCORES, sparse_layers=2,
        rotated=HEAD_DIM // 2,
    ),
}  # fmt: skip


def costs(folder: Path, name: str, tokens: int, dtype: Any = "bfloat16", **more: Any) -> dict[str, StageCost]:
    """Counted `prefill` and a `decode` of one token of a small model, after 16 tokens of the image."""
    config = {"model_type": name, **ARCHITECTURES[name].config, **more}
    (folder / "config.json").write_text(json.dumps(config))
    asked = Workload(
        "vit-t", str(folder), 64, 64, dtype=dtype, prompt_tokens=tokens - 16,
        stages=("vision", "connector", "prefill", "decode"),
    )  # fmt: skip
    return dict(count(asked).stages)


def flops_by_hand(name: str, tokens: int) -> dict[str, set[int]]:
    """Of `prefill`, and of `decode` after it; what they may be in one version of transformers or another."""
    known = ARCHITECTURES[name]
    matrices = known.per_token + HIDDEN * VOCABULARY
    prefill = tokens * matrices + tokens**2 * known.per_score + known.fixed(tokens)
    decode = matrices + (tokens + 1) * known.per_score + known.fixed(1)
    of_latents = decode + tokens * known.expanded
    return {
        "prefill": {2 * prefill + more for more in (0, tokens * known.rotated)},
        "decode": {2 * products + more for products in (decode, of_latents) for more in (0, known.rotated)},
    }


@pytest.mark.parametrize("tokens", [17, 97])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_flops_are_those_of_the_formula(name: str, tokens: int, tmp_path: Path) -> None:
    found = costs(tmp_path, name, tokens)
    for stage, expected in flops_by_hand(name, tokens).items():
        assert found[stage].matrix_flops in expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bytes_are_those_of_the_experts_that_are_read(name: str, dtype: str, tmp_path: Path) -> None:
    found = costs(tmp_path, name, 17, dtype)
    item_bytes, layers = (4 if dtype == "float32" else 2), ARCHITECTURES[name].sparse_layers
    expert_bytes = 3 * HIDDEN * EXPERT_MLP * item_bytes
    # an expert is left out by one token with the probability 3/4, by seventeen with its seventeenth power
    for stage, tokens, read in (("prefill", 17, 8 * (1 - 0.75**17)), ("decode", 1, 2.0)):
        products = {op: n for op, n in found[stage].ops.items() if op.assumed}
        rows_bytes = tokens * CHOSEN * (2 * HIDDEN + 3 * EXPERT_MLP) * item_bytes
        moved = sum(op.moved_bytes * n for op, n in products.items())
        assert moved == pytest.approx(layers * (rows_bytes + read * expert_bytes), abs=8)
        unread = layers * (EXPERTS - read) * expert_bytes
        assert found[stage].unread_weight_bytes == pytest.approx(unread, abs=8)
        assert found[stage].matrix_flops in flops_by_hand(name, 17)[stage]
        (said,) = found[stage].assumptions
        assert f"2 of 8 experts, read E·(1 − (1 − k/E)^n) = {read:.4g} of them" in said


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_every_back_end_for_experts_does_the_same_products(name: str, backend: str, tmp_path: Path) -> None:
    default = costs(tmp_path, name, 17)
    found = costs(tmp_path, name, 17, experts_implementation=backend)
    for stage in ("prefill", "decode"):
        assert found[stage].matrix_flops == default[stage].matrix_flops
        assert found[stage].weight_bytes == default[stage].weight_bytes
    if backend == "eager":
        assert found["prefill"].kernels > default["prefill"].kernels


def test_the_back_end_that_was_asked_for_is_built(tmp_path: Path) -> None:
    costs(tmp_path, "mixtral", 17, experts_implementation="eager")
    assert create_llm(str(tmp_path), device="meta").config._experts_implementation == "eager"


CASE = {
    "model_type": "qwen3_moe", "num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
    "head_dim": 32, "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_of_sixteen_experts_under_a_causal_mask(dtype: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CASE))
    prefill = count(Workload("vit-t", str(tmp_path), 256, 256, dtype=dtype)).stages["prefill"]
    by_hand = 1_012_400_128
    assert prefill.matrix_flops - prefill.skipped_flops in (by_hand, by_hand + 256 * 32)
    experts = sum(op.flops * n for op, n in prefill.ops.items() if op.assumed)
    assert experts == 4 * 256 * 2 * 2 * 3 * 256 * 128


GROUPED: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = {
    "rows": ((34, 16), (4, 16, 24), (34, 24), 34 * 16 * 24),
    "columns": ((4, 34, 16), (16, 24), (34, 24), 34 * 16 * 24),
    "inner": ((34, 16), (16, 24), (4, 34, 24), 34 * 16 * 24),
    "batch": ((4, 34, 16), (4, 16, 24), (4, 34, 24), 4 * 34 * 16 * 24),
}


@pytest.mark.parametrize("groups", GROUPED)
def test_groups_along_any_dimension(groups: str) -> None:
    a, b, size, products = GROUPED[groups]
    offsets = None if groups == "batch" else torch.empty(4, dtype=torch.int32, device="meta")
    inputs = [torch.empty(shape, device="meta") for shape in (a, b)]
    outputs = []

    def multiply(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs.append(F.grouped_mm(x, y, offs=offsets))
        return outputs[-1]

    cost = count_module(nn.Identity(), inputs, call=multiply)
    assert outputs[-1].shape == size
    assert cost.matrix_flops == 2 * products
