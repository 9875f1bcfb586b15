"""Every image-text-to-text type of transformers: which run, which do not, and the tokens of each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_vlms import tiny_config
from vlmprof.cost.costs import MATRIX_KINDS, CellCost
from vlmprof.cost.count import count_cell
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.spec import build_spec
from vlmprof.vlm.hf_vlm.model import HfVLM, create_hf_vlm, read_config
from vlmprof.vlm.hf_vlm.own import own_photo, photo_facts
from vlmprof.vlm.hf_vlm.processors import make_processor
from vlmprof.vlm.hf_vlm.support import REFUSED, RUN, all_support


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


def matrix_flops(cost: CellCost) -> int:
    """Those that torch's counter has a formula for: it has none for the product of routed experts."""
    ops = [(op, n) for stage in cost.stages.values() for op, n in stage.ops.items()]
    return sum(op.flops * n for op, n in ops if op.kind in MATRIX_KINDS and not op.assumed)


WITHOUT_SIZE = ("fuyu", "inkling_mm_model")
"""Types whose processors hand over patches that do not say where they are."""


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", RUN)
def test_a_type_runs_as_its_processor_would_feed_it(model_type: str, tmp_path: Path) -> None:
    """Photos of two shapes: the logits are those of a plain forward pass of what the processor made, and the
    visual tokens are the placeholders of its own ids. Plan and count, made without weights, agree with it.
    """
    for package in RUN[model_type]:
        pytest.importorskip(package)
    tiny_config(model_type).save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    vlm = create_hf_vlm(name, one_piece=False)
    axes = {"vlm": name, "resolution": ["448x224", "200x300"], "dtype": "float32"}
    spec = build_spec({}, {**axes, "prompt_tokens": 5}, "test")
    for cell in make_plan(spec):
        size = cell.height_px, cell.width_px
        photo = own_photo(name, size, "float32", prompt_tokens=5)
        inputs = photo.inputs("cpu")
        parts = vlm.tell_parts(inputs)
        with torch.inference_mode():
            logits, seen = marked(vlm, inputs)
            plain = vlm.model(**inputs, return_dict=False)[0]
            # some processors take the mean of each photo from it, so that all of one color are alike
            black = vlm.forward(photo.make([Image.new("RGB", size[::-1])]))
            # torch's counter has no formula for the CPU's fused attention
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
                vlm.forward(inputs)
        assert seen == [(edge, stage) for stage in parts.stages for edge in ("begin", "end")]
        torch.testing.assert_close(logits, plain)
        assert parts.encoder_tokens > 0
        assert not torch.allclose(black[:, -1], logits[:, -1])
        assert logits.isfinite().all()
        own = photo.make([Image.new("RGB", size[::-1])])
        number = getattr(vlm.model.config, "image_token_id", None)
        if photo.facts.visual_tokens is not None and number is not None:
            assert photo.facts.visual_tokens == int((own["input_ids"] == number).sum())
        assert own_photo(name, size, "float32", prompt_tokens=5, batch_size=2).facts == photo.facts
        cost = count_cell(cell, spec.settings)
        assert cost.weight_bytes == sum(t.nbytes for t in (*vlm.model.parameters(), *vlm.model.buffers()))
        tokens = photo.facts.visual_tokens or parts.connector_tokens
        assert cell.visual_tokens == cost.visual_tokens == tokens
        assert cell.encoder_tokens == parts.encoder_tokens
        assert (photo.facts.encoder_size is None) == (model_type in WITHOUT_SIZE)
        assert matrix_flops(cost) == pytest.approx(torchs.get_total_flops(), rel=1e-3)


COUNTS_MARKERS = (
    "aya_vision", "chameleon", "cohere2_vision", "fuyu", "granite_docling", "idefics3", "internvl",
    "mistral3", "mistral_large4", "molmo2", "qianfan_ocr",
)  # fmt: skip
"""Types whose processors count marks around tiles and rows of an image too."""


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", RUN)
def test_visual_tokens_are_those_that_the_processor_promises(model_type: str, tmp_path: Path) -> None:
    """By `_get_num_multimodal_tokens`, where it has one, for a wide photo and one with odd sides."""
    for package in RUN[model_type]:
        pytest.importorskip(package)
    tiny_config(model_type).save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    own = make_processor(name, *read_config(name), None).processor
    if not hasattr(own, "_get_num_multimodal_tokens"):
        pytest.skip("its processor promises nothing")
    for size in ((224, 448), (301, 199)):
        (promised,) = own._get_num_multimodal_tokens(image_sizes=[size])["num_image_tokens"]
        facts = photo_facts(name, size)
        assert facts.visual_tokens is not None
        assert facts.sequence_tokens is not None
        if model_type in COUNTS_MARKERS:
            # spaces around marks are tokens of some tokenizers only
            assert facts.visual_tokens < promised <= facts.sequence_tokens + 3
        else:
            assert promised == facts.visual_tokens


STILL = {
    "evolla": "Unrecognized configuration class",
    "instructblipvideo": "no image processor for instructblipvideo",
    "mistral4": "no image processor for mistral4",
    "pi0": "its processor cannot be made",
    "udop": "PyTesseract",
    "vision-encoder-decoder": "no image processor for vision-encoder-decoder",
}
"""What trying a type of `REFUSED` ends in."""


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("model_type", REFUSED)
def test_a_type_that_is_refused_still_fails_for_its_reason(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r".+") as failed:
        try_type(model_type, tmp_path)
    said = str(failed.value)
    if "which is not installed" in said:
        pytest.skip(said)
    assert re.search(STILL[model_type], said)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_plan_gives_the_reason_of_a_type_that_is_refused(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    spec = build_spec({}, {"vlm": f"hf:{tmp_path}", "resolution": "224"}, "test")
    with pytest.raises(UserError, match=re.escape(f"{model_type} is not supported: {REFUSED[model_type]}")):
        make_plan(spec)


def try_type(model_type: str, folder: Path) -> None:
    tiny_config(model_type).save_pretrained(folder)
    # what cannot be built without weights cannot be built with them, and takes no time
    create_hf_vlm(f"hf:{folder}", one_piece=False, device="meta")
    photo = own_photo(f"hf:{folder}", (224, 448), "float32", prompt_tokens=5)
    create_hf_vlm(f"hf:{folder}", one_piece=False).tell_parts(photo.inputs("cpu"))
