"""VLMs with their own processors, from a configuration alone: three cases made for this project, all types.

The expected numbers are worked out by hand from the geometry in each configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.commands import vlmprof
from tests.helpers.tiny_vlms import tiny_config
from vlmprof.errors import UserError
from vlmprof.fields import resolution_size
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm
from vlmprof.vlm.hf_vlm.own import own_photo, photo_facts
from vlmprof.vlm.hf_vlm.support import REFUSED, RUN, all_support

Folder = Callable[[Mapping[str, Any]], str]

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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def written(config: Mapping[str, Any]) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return f"hf:{tmp_path}"

    return written


@pytest.mark.parametrize(
    ("config", "resolution", "tokens", "tiles", "tile"),
    [
        # a photo of 112 × 112 goes into 112 × 224 beside its thumbnail: 8 × 8 patches twice, a newline a row
        (LLAVA_NEXT, "112", 64 + 8 * (8 + 1), 3, (112, 112)),
        (LLAVA_NEXT, "224", 64 + 16 * (16 + 1), 5, (112, 112)),
        # 8 × 16 patches, merged two by two
        (GLM4V, "224x112", 32, 1, (112, 224)),
        (GLM4V, "448x224", 128, 1, (224, 448)),
        # every photo becomes 112 × 112
        (PALIGEMMA, "224x112", 64, 1, (112, 112)),
    ],
)
def test_tokens_and_tiles_of_a_photo(
    folder: Folder, config: dict[str, Any], resolution: str, tokens: int, tiles: int, tile: tuple[int, int]
) -> None:
    facts = photo_facts(folder(config), resolution_size(resolution), "pil")
    assert (facts.visual_tokens, facts.tiles, facts.encoder_size) == (tokens, tiles, tile)


def test_the_prefix_of_paligemma_is_bidirectional(folder: Folder) -> None:
    photo = own_photo(folder(PALIGEMMA), (112, 224), "float32", prompt_tokens=3, backend="pil")
    inputs = photo.inputs("cpu")
    assert inputs["token_type_ids"].eq(0).all()
    assert "labels" not in inputs
    assert (inputs["input_ids"] == 990).sum() == 64


def test_a_batch_is_counted_by_the_image(folder: Folder) -> None:
    photo = own_photo(folder(GLM4V), (112, 224), "float32", prompt_tokens=3, backend="pil", batch_size=2)
    assert (photo.facts.visual_tokens, photo.facts.tiles, photo.facts.sequence_tokens) == (32, 1, 35)
    assert photo.warnings[0].startswith("no preprocessor files")
    assert photo.warnings[1].startswith("no tokenizer files")


def test_a_file_beside_the_configuration_is_taken(folder: Folder, tmp_path: Path) -> None:
    name = folder(PALIGEMMA)
    settings = {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 56, "width": 56},
        "image_seq_length": 16,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    photo = own_photo(name, (100, 100), "float32", backend="pil")
    assert (photo.facts.visual_tokens, photo.facts.encoder_size) == (16, (56, 56))
    assert not any("preprocessor" in words for words in photo.warnings)


def test_a_type_without_a_processor_gets_one_line(folder: Folder) -> None:
    with pytest.raises(UserError, match="processor for mistral4"):
        photo_facts(folder({"model_type": "mistral4"}), (112, 112))


@pytest.mark.slow
def test_a_sweep_of_photos(folder: Folder, tmp_path: Path) -> None:
    name = folder(GLM4V)
    ended = vlmprof(
        tmp_path, "sweep", "--vlm", name, "--resolution", "224x112", "--dtype", "float32",
        "--warm-up", "1", "--iterations", "2", "--out", "run",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    row = json.loads((tmp_path / "run" / "rows.jsonl").read_text())
    found = [row[name] for name in ("visual_tokens", "encoder_tokens", "tiles")]
    assert found == [32, 128, 1]
    assert (row["encoder_height_px"], row["encoder_width_px"]) == (112, 224)
    assert all(row[f"host_{stage}_s"] > 0 for stage in ("preprocess", "vision", "connector", "prefill"))


def test_every_type_of_transformers_is_in_the_table() -> None:
    from transformers.models.auto import modeling_auto

    known = set(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert known - {support.model_type for support in all_support()} == set()
    assert set(RUN) & set(REFUSED) == set()


def marked(vlm: HfVLM, inputs: dict[str, Any]) -> tuple[Tensor, list[tuple[str, str]]]:
    """Logits of a forward pass, and the marks of its stages."""
    seen: list[tuple[str, str]] = []
    handles = vlm.mark_stages(
        lambda stage: seen.append(("begin", stage)), lambda stage: seen.append(("end", stage))
    )
    logits = vlm.forward(inputs)
    for handle in handles:
        handle.remove()
    return logits, seen


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", RUN)
def test_a_type_runs_as_its_processor_would_feed_it(model_type: str, tmp_path: Path) -> None:
    """Photos of two shapes: the logits are those of a plain forward pass of what the processor made, and the
    visual tokens are the placeholders of its own ids."""
    for package in RUN[model_type]:
        pytest.importorskip(package)
    tiny_config(model_type).save_pretrained(tmp_path)
    vlm = create_hf_vlm(f"hf:{tmp_path}", one_piece=False)
    for size in ((224, 448), (300, 200)):
        photo = own_photo(f"hf:{tmp_path}", size, "float32", prompt_tokens=5)
        inputs = photo.inputs("cpu")
        parts = vlm.tell_parts(inputs)
        with torch.inference_mode():
            logits, seen = marked(vlm, inputs)
            plain = vlm.model(**inputs, return_dict=False)[0]
            black, white = (
                vlm.forward(photo.make([Image.new("RGB", size[::-1], color)])) for color in ("black", "white")
            )
        assert seen == [(edge, stage) for stage in parts.stages for edge in ("begin", "end")]
        torch.testing.assert_close(logits, plain)
        assert parts.encoder_tokens > 0
        assert not torch.allclose(black[:, -1], white[:, -1])
        assert logits.isfinite().all()
        own = photo.make([Image.new("RGB", size[::-1])])
        number = getattr(vlm.model.config, "image_token_id", None)
        if photo.facts.visual_tokens is not None and number is not None:
            assert photo.facts.visual_tokens == int((own["input_ids"] == number).sum())
