"""Configurations of transformers' image-text-to-text types, small in all but what their processors see."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import ALLOWED_LAYER_TYPES

VOCABULARY = 1024
WIDTHS = {
    "hidden_size": 64, "embed_dim": 64, "d_model": 64, "out_hidden_size": 64, "projection_dim": 64,
    "text_hidden_size": 64, "vision_output_dim": 64, "projector_hidden_size": 64,
    "word_embed_proj_dim": 64,
    "output_dim": 64, "encoder_hidden_size": 64, "image_text_hidden_size": 64, "adapter_out_dim": 64,
    "intermediate_size": 96, "mlp_dim": 96, "ffn_dim": 96, "moe_intermediate_size": 32, "d_ff": 96,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "shared_expert_intermediate_size": 32,
    "head_dim": 32, "d_kv": 32, "num_attention_heads": 2, "num_heads": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
DEPTHS = (
    "num_hidden_layers", "depth", "encoder_layers", "decoder_layers", "num_layers", "layers",
    "num_decoder_layers", "resampler_depth", "n_layers",
)  # fmt: skip
EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")


def shrunk(config: dict[str, Any], layers: int = 2) -> dict[str, Any]:
    """The same configuration with small widths, few layers and experts, and a small vocabulary."""
    head_dim = config.get("qk_rope_head_dim") or 32
    rotary = head_dim * (config.get("partial_rotary_factor") or 1)
    old_depth = next((config[name] for name in DEPTHS if isinstance(config.get(name), int)), None)
    small: dict[str, Any] = {}
    for key, value in config.items():
        if not isinstance(key, str) or key in ("id2label", "label2id"):
            continue
        if key == "per_layer_config" and isinstance(value, dict):
            small[key] = {layer: entry for layer, entry in value.items() if int(layer) < layers}
        elif isinstance(value, dict) and all(isinstance(name, str) for name in value):
            small[key] = shrunk(value, layers)
            if (sections := value.get("mrope_section")) is not None:
                half = int(rotary * (value.get("partial_rotary_factor") or 1)) // 2
                first = [half * section // sum(sections) for section in sections[:-1]]
                small[key]["mrope_section"] = [*first, half - sum(first)]
        elif key == "head_dim" and "qk_rope_head_dim" in config:
            small[key] = value
        elif key in WIDTHS and isinstance(value, int) and not isinstance(value, bool):
            small[key] = min(value, WIDTHS[key])
        elif key in DEPTHS and isinstance(value, int):
            small[key] = min(value, layers)
        elif key in EXPERTS and isinstance(value, int):
            small[key] = min(value, 4)
        elif key == "num_experts_per_tok" and isinstance(value, int):
            small[key] = min(value, 2)
        elif key in ("vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input") and value:
            small[key] = min(value, VOCABULARY)
        elif isinstance(value, list) and old_depth and len(value) == old_depth and old_depth > layers:
            small[key] = [*value[: layers - 1], value[-1]]
        else:
            small[key] = value
    return small


def _is_token_id(key: str, value: Any) -> bool:
    return key.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= VOCABULARY - 64


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A model of this type that takes a second to build; the processor's geometry is the default one."""
    config = shrunk(AutoConfig.for_model(model_type).to_dict(), LAYERS.get(model_type, 2))
    names: dict[int, int] = {}

    def moved(table: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in table.items():
            if isinstance(value, dict) and all(isinstance(name, str) for name in value):
                made[key] = moved(value)
            elif _is_token_id(key, value):
                made[key] = names.setdefault(value, VOCABULARY - 1 - len(names))
            else:
                made[key] = value
        return made

    config = moved(config)
    for path, value in EXCEPTIONS.get(model_type, {}).items():
        *above, key = path.split(".")
        table = config
        for name in above:
            if table.get(name) is None:
                table[name] = {}
            table = table[name]
        table[key] = value
    config.pop("model_type")
    config.pop("transformers_version", None)
    return AutoConfig.for_model(model_type, **config)


LAYERS = {
    "gemma4": 6, "gemma4_unified": 6, "diffusion_gemma": 6, "dots3_note": 4, "mllama": 4, "gemma3n": 6,
    "vipllava": 12, "deepseek_vl_hybrid": 4, "molmo2": 4, "lfm2_vl": 4, "lfm3_vl": 4,
}  # fmt: skip
"""Layers that a type needs, where two are too few."""

SIGLIP = {"vision_config.image_size": 256, "vision_config.patch_size": 16, "mm_tokens_per_image": 64}
MROPE = {"text_config.rope_parameters.mrope_section": [4, 6, 6]}
GEMMA4 = {"vision_config": {
    "model_type": "gemma4_vision", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
}}  # fmt: skip
SAM = {"vision_config.sam_config.downsample_channels": [32, 64]}
# the name up to transformers 5.17
DEEPSEEK = "deepseek_sparse_attention"
INDEXED = DEEPSEEK if DEEPSEEK in ALLOWED_LAYER_TYPES else "indexed_attention"
TIMM_VIT = {"vision_config": {"model_type": "timm_wrapper", "architecture": "vit_pe_core_tiny_patch16_384"}}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "aria": {"vision_config.image_size": 980, "vision_config.patch_size": 14},
    "aya_vision": {"vision_config.image_size": 364},
    "blip-2": {"image_token_index": 1000},
    "instructblip": {"image_token_index": 1000},
    "chameleon": {
        "image_token_id": 1000, "vq_config.num_embeddings": 8, "vq_config.base_channels": 32,
        "vocabulary_map": {"<image>": 1000, **{f"IMGIMG{'ABCDEFGH'[n % 8]}Z": n for n in range(8)}},
    },
    "gemma3": SIGLIP,
    "shieldgemma2": SIGLIP,
    "t5gemma2": {"encoder.vision_config.image_size": 256, "encoder.mm_tokens_per_image": 64},
    "glm46v": MROPE, "glm4v": MROPE, "glm4v_moe": {"text_config.rope_parameters.mrope_section": [2, 3, 3]},
    "glm_ocr": MROPE, "glmga": MROPE, "qwen2_vl": MROPE, "qwen2_5_vl": MROPE, "paddleocr_vl": MROPE,
    "gemma4": GEMMA4, "diffusion_gemma": {
        **GEMMA4, "text_config.num_experts": 4, "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 32,
    }, "fast_vlm": {
        "vision_config.hidden_size": 128,
        "vision_config.model_args": {"layers": [1, 1, 1, 1, 1], "embed_dims": [32, 32, 64, 64, 64]},
    },
    "florence2": {
        "vision_config.embed_dim": [32, 64, 64, 128], "vision_config.num_heads": [2, 2, 2, 4],
        "vision_config.num_groups": [2, 2, 2, 4], "vision_config.depths": [1, 1, 2, 1],
    },
    "emu3": {"image_token_id": 1000, "vq_config.codebook_size": 8, "vq_config.base_channels": 32,
             "vq_config.hidden_size": 128, "vocabulary_map": {
        "<image>": 1000, "<|extra_200|>": 1001, "<|extra_201|>": 1002,
        **{f"<|visual token {n:06}|>": n + 10 for n in range(8)},
    }},
    "hunyuan_vl": {
        "text_config.head_dim": 32, "text_config.rope_parameters.mrope_section": [4, 4, 4, 4],
    },
    "idefics3": {"vision_config.image_size": 256},
    "smolvlm": {"vision_config.image_size": 256},
    "minicpm_ocr": {"image_token_id": 1000}, "minicpmv4_6": {"image_token_id": 1000},
    "minicpmv4_7": {"image_token_id": 1000},
    "kimi_k25": {"projection_hidden_size": 64},
    "llama4": {"vision_config.projector_input_dim": 256, "vision_config.projector_output_dim": 256,
               "vision_config.intermediate_size": 256, "vision_config.vision_output_dim": 256},
    "mllama": {"vision_config.intermediate_layers_indices": [0, 1], "vision_config.num_global_layers": 2,
               "vision_config.vision_output_dim": 192, "text_config.cross_attention_layers": [1]},
    "molmo2": {"image_patch_id": 1000, "adapter_config.vision_feature_layer": [3, 1]},
    "muse_glimmer": {"out_hidden_size": 256}, "muse_spark": {"out_hidden_size": 256},
    "gemma3n": {
        "vision_config.hidden_size": 2048,
        "text_config.num_kv_shared_layers": 2, "text_config.intermediate_size": 96,
        "text_config.layer_types": ["sliding_attention", "full_attention"] * 3,
    },
    "nemotron_h_omni": {"vision_hidden_size": 64, "image_token_id": 1000},
    "mistral_large4": {"text_config.kv_source_layers": [0, 1]},
    "granite4_vision": {
        "vision_config.image_size": 384, "vision_config.patch_size": 16, "downsample_rate": "1/2",
        "image_grid_pinpoints": [[384, 384], [384, 768], [768, 384]],
        "deepstack_layer_map": [[-1, 0]], "spatial_target_layers": [0],
    },
    "qwen2_5_omni_thinker": {"vision_start_token_id": 1000, **MROPE},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 1000},
    "perception_lm": {"projector_pooling_ratio": 2, "vision_config": {
        "model_type": "timm_wrapper", "architecture": "vit_pe_core_tiny_patch16_384",
        "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": [448, 448], "patch_size": 14,
                       "global_pool": "", "use_post_transformer_norm": False},
        "num_features": 64,
    }},
    "ernie4_5_vl_moe": {
        "text_config.moe_intermediate_size": [32, 16], "text_config.rope_parameters.mrope_section": [6, 6, 4],
        "text_config.moe_k": 2,
    },
    "pp_formulanet": {"vision_config.decoder_hidden_size": 64},
    "step3p7": {"text_config.sliding_window": 64},
    "glm5_next": {"text_config.layer_types": ["linear_attention", INDEXED]},
    "apertus1p5": {
        "vision_config.codebook_size": 8, "vision_config.base_channels": 32, "vision_config.embed_dim": 32,
        "vision_config.latent_channels": 32, "audio_config.codebook_size": 8, "audio_config.codebook_dim": 64,
        "image_token_offset": 900, "audio_token_offset": 908,
    },
    "cohere_compass": {"text_config.rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    }},
    "deepseek_ocr2": {
        **SAM, "text_config.mlp_layer_types": ["dense", "sparse"], "text_config.num_experts_per_tok": 2,
    },
    "unlimited_ocr": SAM,
    "gemma4_unified": {"vision_config": {
        "model_type": "gemma4_unified_vision", "mm_embed_dim": 64, "output_proj_dims": 64,
    }},
    "dots3_note": {
        "text_config.layer_types": ["indexed_attention"] * 2 + ["sliding_attention"] * 2,
        "text_config.per_layer_config": {layer: {
            "num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 64, "qk_nope_head_dim": 192,
        } for layer in ("2", "3")},
        "text_config.index_n_heads": 2,
        "vision_config.adapter_in_dim": 64, "audio_config.adapter_input_size": 64,
        "audio_config.downsample_hidden_size": 48,
    },
    "qwen4_exp": {
        "text_config.indexer_n_heads": 2, "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": 32, "text_config.indexer_budget": 64,
        "text_config.indexer_compress_ratio": 4,
    },
}  # fmt: skip
"""What the rules above get wrong, by type and dotted key."""
