"""Configurations of three small VLMs, made by hand for photos through their own processors."""

from __future__ import annotations

TEXT = {
    "vocab_size": 1000, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
}  # fmt: skip
PLAIN = {
    "image_size": 112, "patch_size": 14, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 3, "num_attention_heads": 4,
}  # fmt: skip
LLAVA_NEXT = {
    "model_type": "llava_next", "image_token_index": 999,
    "image_grid_pinpoints": [[112, 224], [224, 112], [224, 224]],
    "text_config": {"model_type": "llama", **TEXT},
    "vision_config": {"model_type": "clip_vision_model", **PLAIN},
}  # fmt: skip
GLM4V = {
    "model_type": "glm4v", "image_token_id": 990, "video_token_id": 991,
    "image_start_token_id": 992, "image_end_token_id": 993,
    "text_config": {
        "model_type": "glm4v_text", **TEXT,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "mrope_section": [2, 3, 3],
        },
    },
    "vision_config": {
        "model_type": "glm4v_vision", "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
        "out_hidden_size": 128, "image_size": 112, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}  # fmt: skip
PALIGEMMA = {
    "model_type": "paligemma", "image_token_index": 990, "projection_dim": 128, "hidden_size": 128,
    "text_config": {"model_type": "gemma", "head_dim": 32, **TEXT},
    "vision_config": {
        "model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 128, **PLAIN
    },
}  # fmt: skip
PIXTRAL = {
    "model_type": "llava", "image_token_index": 990, "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "text_config": {"model_type": "mistral", "head_dim": 32, **TEXT},
    "vision_config": {"model_type": "pixtral", "head_dim": 16, **{**PLAIN, "image_size": 448}},
}  # fmt: skip
LLAVA = {
    "model_type": "llava", "image_token_index": 990, "vision_feature_select_strategy": "full",
    "text_config": {"model_type": "llama", **TEXT},
    "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **PLAIN},
}  # fmt: skip
