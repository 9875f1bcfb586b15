"""Causal language models of transformers made small, by the names that their configurations use for sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

_NAMES = {
    64: (
        "hidden_size d_model n_embd dim emb_dim hidden_dim embedding_size embedding_dim input_embedding_size "
        "output_embedding_size lru_width attention_hidden_size"
    ),
    96: (
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim dim_ff dff d_inner feed_forward_size "
        "intermediate_dim ffn_hidden_size"
    ),
    48: "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size",
    4: (
        "num_hidden_layers n_layer n_layers num_layers num_blocks decoder_layers encoder_layers "
        "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
        "encoder_attention_heads linear_num_value_heads mamba_n_heads mamba_num_heads mamba_n_groups"
    ),
    2: (
        "num_key_value_heads linear_num_key_heads num_experts_per_tok num_experts_per_token moe_topk n_group "
        "num_expert_group"
    ),
    1: "topk_group",
    8: "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim index_n_heads",
    16: (
        "head_dim d_head dim_head linear_key_head_dim linear_value_head_dim kv_lora_rank q_lora_rank "
        "v_head_dim qk_nope_head_dim kv_channels attention_head_dim mamba_d_head mamba_head_dim "
        "index_head_dim rotary_dim attention_head_size"
    ),
    128: "vocab_size vocab_size_per_layer_input unpadded_vocab_size",
}
SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}

TINY: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 32},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 96, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "intermediate_size": 96,
        "activation_sparsity_pattern": None,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8, "num_layers": 2, "zero_expert_num": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2},
    "nemotron_h": {"n_groups": 2},
    "zamba": {"num_hidden_layers": 8, "attention_head_dim": 32, "attention_hidden_size": 128},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_headdim": 32,
        "n_mamba_heads": 4,
    },
}
"""What has to go together, and what an architecture's defaults leave out."""


def tiny_config(model_type: str) -> dict[str, Any]:
    """A small `config.json` of an architecture. Raises what transformers does where it has no defaults."""
    base = CONFIG_MAPPING[model_type]()
    parts = {name: part for name, part in vars(base).items() if hasattr(part, "to_dict")}
    shrunk = {name: _shrunk(part.to_dict()) for name, part in parts.items()}
    own = {name: value for name, value in base.to_dict().items() if name not in parts}
    special = {
        name: {**shrunk[name], **value} if name in shrunk else value
        for name, value in TINY.get(model_type, {}).items()
    }
    return {"model_type": model_type, **shrunk, **_shrunk(own), **special}


def write(config: dict[str, Any], folder: Path) -> str:
    """Put a configuration into `folder`; returns the name that a specification gives it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    small = {
        name: SIZES[name]
        for name, value in values.items()
        if name in SIZES and isinstance(value, int) and value > SIZES[name]
    }
    small |= {
        name: 0
        for name, value in values.items()
        if name.endswith(("_token_id", "_token_index")) and isinstance(value, int) and value >= 128
    }
    if values.get("num_key_value_heads") == values.get("num_attention_heads"):
        small.pop("num_key_value_heads", None)
        if "num_attention_heads" in small:
            small["num_key_value_heads"] = small["num_attention_heads"]
    if "qk_rope_head_dim" in values:
        small.pop("head_dim", None)  # it is that of the rotated part
    return small
