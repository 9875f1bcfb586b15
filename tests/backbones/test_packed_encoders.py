"""Towers of packed patches, as Qwen2-VL's, against transformers' processors and forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.small_vlms import qwen2_5_vl
from tests.helpers.tiny_vlms import tiny_config
from vlmprof.backbones import create_backbone, facts
from vlmprof.backbones.hub_config import vision_part
from vlmprof.backbones.packed_encoder import PackedEncoder, patch_formats
from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.vlm.hf_vlm.processors import make_processor
from vlmprof.vlm.workload import Workload

TYPES = (
    "cohere_compass", "cosmos3_edge", "dots3_note", "ernie4_5_vl_moe", "exaone4_5", "glm46v", "glm4v",
    "glm4v_moe", "glm5_next", "glm_ocr", "hunyuan_vl", "hy_v4_vl", "kimi_k25", "lfm3_vl", "minimax_m3_vl",
    "qwen2_5_omni_thinker", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_omni_moe_thinker", "qwen3_vl",
    "qwen3_vl_moe",
)  # fmt: skip
NOT_FLAT = ("kimi_k25",)


def picture(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8))


def as_images(photo: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()


def packed_by_its_processor(config: Any, photo: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as they are, without resizing or normalization."""
    own = make_processor("hf:it", config, Path("/nowhere"), None).processor.image_processor
    made = own(
        images=photo, do_resize=False, do_rescale=False, do_normalize=False, return_tensors="pt"
    )  # fmt: skip
    pixels: torch.Tensor = made["pixel_values"]
    return pixels.float(), made["image_grid_thw"]


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_patches_are_packed_as_by_the_processor(model_type: str) -> None:
    try:
        config = tiny_config(model_type)
        side = vision_part(config).patch_size
        pixels, grid = packed_by_its_processor(config, picture(8 * side, 6 * side))
    except (KeyError, ValueError, UserError) as problem:
        pytest.skip(f"not in this version of transformers, or without torchvision ({problem})")
    patches = next(p for p in patch_formats(vision_part(config)) if p.flat != (model_type in NOT_FLAT))
    packed, rows_columns = patches.packed(as_images(picture(8 * side, 6 * side)))
    torch.testing.assert_close(packed.reshape(pixels.shape), pixels, rtol=0, atol=0)
    assert rows_columns.tolist() == grid.tolist()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    qwen2_5_vl().save_pretrained(tmp_path)
    return f"hf:{tmp_path}"


def test_tokens_are_those_that_the_language_model_would_get(folder: str) -> None:
    known = facts(folder)
    assert (known.stride, known.multiple, known.embed_dim) == (28, 28, 48)
    encoder = create_backbone(folder)
    assert isinstance(encoder, PackedEncoder)
    photos = [picture(112, 168), picture(112, 168).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    config = qwen2_5_vl()
    made = [packed_by_its_processor(config, photo) for photo in photos]
    with torch.inference_mode():
        tokens = encoder(torch.cat([as_images(photo) for photo in photos]))
        for photo, (pixels, grid) in enumerate(made):
            alone = encoder.model(pixels, grid).pooler_output
            torch.testing.assert_close(tokens[photo], alone, rtol=1e-4, atol=1e-5)
    assert tokens.shape == (2, 4 * 6, 48)


def test_the_smallest_image_gives_what_the_facts_say(tmp_path: Path) -> None:
    """HunyuanVL's merger makes 4 tokens of one square, with its marks: as many as patches."""
    tiny_config("hunyuan_vl").save_pretrained(tmp_path)
    known = facts(f"hf:{tmp_path}")
    with torch.inference_mode():
        tokens = create_backbone(known.name)(torch.zeros(3, 3, known.min_size, known.min_size))
    known.check_output(tuple(tokens.shape), 3, known.min_size, known.min_size)


def test_flops_are_those_of_a_run(folder: str) -> None:
    images = torch.zeros(1, 3, 112, 168)
    asked = Workload(folder, "llama-23m", 112, 168, dtype="float32", stages=("vision",))
    counted = count(asked).stages["vision"]
    encoder = create_backbone(folder)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
        encoder(images)
    assert counted.matrix_flops == pytest.approx(torchs.get_total_flops(), rel=1e-3)
