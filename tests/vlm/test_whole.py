"""Whole VLMs of several architectures, made small on the spot, and where hooks mark their stages."""

import pytest
import torch
import transformers
from transformers import AutoConfig

from vlmprof.errors import UserError
from vlmprof.vlm.whole import create_whole_vlm

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


def llava():
    vision = {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "llava", vision_config=vision, text_config={"model_type": "llama", **TEXT}, image_token_index=127
    )


def qwen2_5_vl():
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


def smolvlm():
    vision = {"image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "smolvlm",
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=127,
        scale_factor=2,
        pad_token_id=0,
    )


def internvl():
    vision = {"image_size": [56, 56], "patch_size": [14, 14], **PLAIN}
    return AutoConfig.for_model(
        "internvl",
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=127,
    )


def gemma3():
    vision = {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14, **PLAIN}
    return AutoConfig.for_model(
        "gemma3",
        vision_config=vision,
        text_config={**TEXT, "sliding_window": 16},
        image_token_index=127,
        mm_tokens_per_image=4,
    )


CASES = {llava: 16, qwen2_5_vl: 4, smolvlm: 4, internvl: 4, gemma3: 4}


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def case(request, tmp_path):
    request.param().save_pretrained(tmp_path)
    return f"hf:{tmp_path}", CASES[request.param]


@pytest.mark.parametrize("batch", [1, 2])
def test_one_pass_over_every_position(case, batch):
    name, tokens = case
    vlm = create_whole_vlm(name, prompt_tokens=5)
    images = torch.randn(batch, 3, 56, 56)
    with torch.inference_mode():
        logits = vlm.forward(images)
    assert vlm.visual_tokens(images) == tokens
    assert logits.shape == (batch, tokens + 5, 128)
    assert logits.isfinite().all()
    last = create_whole_vlm(name, prompt_tokens=5, logits="last")
    with torch.inference_mode():
        torch.testing.assert_close(last.forward(images), logits[:, -1:], rtol=1e-4, atol=1e-4)


def test_the_image_reaches_the_logits(case):
    vlm = create_whole_vlm(case[0], prompt_tokens=3)
    with torch.inference_mode():
        one, other = (vlm.forward(torch.randn(1, 3, 56, 56)) for _ in range(2))
    assert not torch.allclose(one[:, -1], other[:, -1])


def test_stages_are_marked_in_order_and_do_not_overlap(case):
    vlm = create_whole_vlm(case[0])
    images = torch.randn(1, 3, 56, 56)
    vlm.visual_tokens(images)
    seen = []
    handles = vlm.mark_stages(
        lambda stage: seen.append(("begin", stage)), lambda stage: seen.append(("end", stage))
    )
    with torch.inference_mode():
        vlm.forward(images)
        expected = [
            (edge, stage) for stage in ("vision", "connector", "prefill") for edge in ("begin", "end")
        ]
        assert seen == expected
        for handle in handles:
            handle.remove()
        vlm.forward(images)
    assert seen == expected


def test_weights_are_shared_out_among_the_stages(case):
    vlm = create_whole_vlm(case[0], dtype=torch.bfloat16)
    weights = vlm.weight_bytes()
    whole = sum(t.numel() * t.element_size() for t in (*vlm.model.parameters(), *vlm.model.buffers()))
    assert sum(weights.values()) == whole
    assert all(size > 0 for size in weights.values())
    assert {parameter.dtype for parameter in vlm.model.parameters()} == {torch.bfloat16}


def test_packed_patches_are_the_processors_own(tmp_path):
    config = qwen2_5_vl()
    from vlmprof.vlm.whole_inputs import image_inputs

    pixels = torch.randint(256, (3, 56, 84), dtype=torch.uint8)
    processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=14, min_pixels=56 * 56, max_pixels=10**6, do_normalize=False, do_rescale=False
    )
    expected = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")
    ours = image_inputs(config, pixels[None].float())
    assert ours["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
    torch.testing.assert_close(ours["pixel_values"], expected["pixel_values"].float())


def test_what_is_no_vlm_gets_one_line(tmp_path):
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot build it") as problem:
        create_whole_vlm(f"hf:{tmp_path}")
    assert "\n" not in str(problem.value)
