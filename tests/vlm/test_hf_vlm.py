"""Whole VLMs of several architectures, made small on the spot, and where hooks mark their stages."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig

from tests.helpers.small_vlms import CASES, qwen2_5_vl
from vlmprof.errors import UserError
from vlmprof.vlm.hf_vlm.model import create_hf_vlm


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int]:
    request.param().save_pretrained(tmp_path)
    return f"hf:{tmp_path}", CASES[request.param]


@pytest.mark.parametrize("batch", [1, 2])
def test_one_pass_over_every_position(case: tuple[str, int], batch: int) -> None:
    name, tokens = case
    vlm = create_hf_vlm(name, prompt_tokens=5)
    images = torch.randn(batch, 3, 56, 56)
    with torch.inference_mode():
        logits = vlm.forward(vlm.inputs(images))
    assert vlm.visual_tokens(images) == tokens
    assert logits.shape == (batch, tokens + 5, 128)
    assert logits.isfinite().all()
    last = create_hf_vlm(name, prompt_tokens=5, logits="last")
    with torch.inference_mode():
        torch.testing.assert_close(last.forward(last.inputs(images)), logits[:, -1:], rtol=1e-4, atol=1e-4)


def test_the_image_reaches_the_logits(case: tuple[str, int]) -> None:
    vlm = create_hf_vlm(case[0], prompt_tokens=3)
    with torch.inference_mode():
        one, other = (vlm.forward(vlm.inputs(torch.randn(1, 3, 56, 56))) for _ in range(2))
    assert not torch.allclose(one[:, -1], other[:, -1])


def test_stages_are_marked_in_order_and_do_not_overlap(case: tuple[str, int]) -> None:
    vlm = create_hf_vlm(case[0])
    images = torch.randn(1, 3, 56, 56)
    vlm.visual_tokens(images)
    seen = []
    handles = vlm.mark_stages(
        lambda stage: seen.append(("begin", stage)), lambda stage: seen.append(("end", stage))
    )
    with torch.inference_mode():
        vlm.forward(vlm.inputs(images))
        expected = [
            (edge, stage) for stage in ("vision", "connector", "prefill") for edge in ("begin", "end")
        ]
        assert seen == expected
        for handle in handles:
            handle.remove()
        vlm.forward(vlm.inputs(images))
    assert seen == expected


def test_weights_are_shared_out_among_the_stages(case: tuple[str, int]) -> None:
    vlm = create_hf_vlm(case[0], dtype=torch.bfloat16)
    weights = vlm.weight_bytes()
    whole = sum(t.numel() * t.element_size() for t in (*vlm.model.parameters(), *vlm.model.buffers()))
    assert sum(weights.values()) == whole
    assert all(size > 0 for size in weights.values())
    assert {parameter.dtype for parameter in vlm.model.parameters()} == {torch.bfloat16}


def test_packed_patches_are_the_processors_own(tmp_path: Path) -> None:
    config = qwen2_5_vl()
    from vlmprof.vlm.hf_vlm.inputs import image_inputs

    pixels = torch.randint(256, (3, 56, 84), dtype=torch.uint8)
    processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=14, min_pixels=56 * 56, max_pixels=10**6, do_normalize=False, do_rescale=False
    )
    expected = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")
    ours = image_inputs(config, pixels[None].float())
    assert ours["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
    torch.testing.assert_close(ours["pixel_values"], expected["pixel_values"].float())


def test_what_is_no_vlm_gets_one_line(tmp_path: Path) -> None:
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot build it") as problem:
        create_hf_vlm(f"hf:{tmp_path}")
    assert "\n" not in str(problem.value)
