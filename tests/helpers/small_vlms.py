"""Minimal configurations of VLMs from transformers, of several architectures."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedConfig

TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 128,
    "head_dim": 12,
}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def llava() -> PreTrainedConfig:
    vision = {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "llava", vision_config=vision, text_config={"model_type": "llama", **TEXT}, image_token_index=127
    )


def qwen2_5_vl() -> PreTrainedConfig:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 48,
        "patch_size": 14,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
    return AutoConfig.for_model(
        "qwen2_5_vl",
        vision_config=vision,
        text_config={**TEXT, "rope_parameters": rope},
        image_token_id=127,
        video_token_id=126,
        vision_start_token_id=125,
        vision_end_token_id=124,
    )


def smolvlm() -> PreTrainedConfig:
    vision = {"image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "smolvlm",
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=127,
        scale_factor=2,
        pad_token_id=0,
    )


def internvl() -> PreTrainedConfig:
    vision = {"image_size": [56, 56], "patch_size": [14, 14], **PLAIN}
    return AutoConfig.for_model(
        "internvl",
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=127,
    )


def gemma3() -> PreTrainedConfig:
    vision = {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "gemma3",
        vision_config=vision,
        text_config={**TEXT, "sliding_window": 16},
        image_token_index=127,
        mm_tokens_per_image=4,
    )


CASES = {llava: 16, qwen2_5_vl: 4, smolvlm: 4, internvl: 4, gemma3: 4}
"""Visual tokens of each at 56 x 56 pixels."""
