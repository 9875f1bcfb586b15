"""Which of transformers' image-text-to-text types run with their own processors, and why others do not.

`tests/vlm/test_every_vlm.py` builds the types of `RUN` small, runs each on two photos and counts it without
weights. It also holds that those of `REFUSED` still fail for the reason given; those whose reason is
`NOT_SMALL` fail before they could show another.
"""

from __future__ import annotations

from dataclasses import dataclass

TRIED_WITH = "5.24"
"""The version of transformers."""


@dataclass(frozen=True)
class Support:
    """One type."""

    model_type: str
    runs: bool
    needs: tuple[str, ...] = ()
    """Packages required besides transformers and Pillow."""
    reason: str | None = None
    """Why it does not run, or is not known to."""

    @property
    def verdict(self) -> str:
        """`yes`, `no` or `not tried`."""
        return "yes" if self.runs else "not tried" if self.reason == NOT_SMALL else "no"


def all_support() -> list[Support]:
    """Every type, in alphabetical order."""
    known = [Support(name, True, needs) for name, needs in RUN.items()]
    known += [Support(name, False, reason=reason) for name, reason in REFUSED.items()]
    return sorted(known, key=lambda support: support.model_type)


NOT_SMALL = "its default configuration could not be made small enough to try"
TORCHVISION = ("torchvision",)
TIMM = ("timm",)
NOTHING: tuple[str, ...] = ()

RUN: dict[str, tuple[str, ...]] = {
    "aria": NOTHING,
    "aya_vision": NOTHING,
    "blip": NOTHING,
    "blip-2": NOTHING,
    "chameleon": NOTHING,
    "cohere2_vision": TORCHVISION,
    "cosmos3_edge": NOTHING,
    "cosmos3_omni": NOTHING,
    "deepseek_vl": NOTHING,
    "deepseek_vl_hybrid": NOTHING,
    "emu3": NOTHING,
    "exaone4_5": NOTHING,
    "fast_vlm": TIMM,
    "florence2": NOTHING,
    "gemma3": NOTHING,
    "gemma3n": TIMM,
    "gemma4": NOTHING,
    "git": NOTHING,
    "glm46v": NOTHING,
    "glm4v": NOTHING,
    "glm4v_moe": NOTHING,
    "glm5_next": NOTHING,
    "glm_ocr": NOTHING,
    "glmga": NOTHING,
    "got_ocr2": NOTHING,
    "granite_docling": NOTHING,
    "hunyuan_vl": NOTHING,
    "hy_v4_vl": NOTHING,
    "hyperclovax_vision_v2": NOTHING,
    "idefics": NOTHING,
    "idefics2": NOTHING,
    "idefics3": NOTHING,
    "inkling2": TORCHVISION,
    "inkling2_loop": TORCHVISION,
    "inkling_mm_model": TORCHVISION,
    "instructblip": NOTHING,
    "internvl": NOTHING,
    "janus": NOTHING,
    "kimi_k25": TORCHVISION,
    "kosmos-2": NOTHING,
    "kosmos-2.5": NOTHING,
    "lfm2_vl": TORCHVISION,
    "lfm3_vl": NOTHING,
    "lighton_ocr": NOTHING,
    "llama4": TORCHVISION,
    "llava": NOTHING,
    "llava_next": NOTHING,
    "llava_next_video": NOTHING,
    "llava_onevision": NOTHING,
    "minicpm_ocr": TORCHVISION,
    "minicpmv4_6": NOTHING,
    "minicpmv4_7": NOTHING,
    "minimax_m3_vl": TORCHVISION,
    "mistral3": NOTHING,
    "mistral_large4": NOTHING,
    "mllama": NOTHING,
    "molmo2": TORCHVISION,
    "muse_glimmer": TORCHVISION,
    "muse_spark": TORCHVISION,
    "nemotron_h_omni": TORCHVISION,
    "ovis2": NOTHING,
    "paddleocr_vl": NOTHING,
    "paligemma": NOTHING,
    "perception_lm": (*TORCHVISION, *TIMM),
    "pix2struct": NOTHING,
    "qianfan_ocr": NOTHING,
    "qwen2_5_omni_thinker": NOTHING,
    "qwen2_5_vl": NOTHING,
    "qwen2_vl": NOTHING,
    "qwen3_5": NOTHING,
    "qwen3_5_moe": NOTHING,
    "qwen3_omni_moe_thinker": NOTHING,
    "qwen3_vl": NOTHING,
    "qwen3_vl_moe": NOTHING,
    "shieldgemma2": NOTHING,
    "smolvlm": NOTHING,
    "t5gemma2": NOTHING,
    "video_llama_3": NOTHING,
    "video_llava": NOTHING,
    "vipllava": NOTHING,
}

REFUSED = {
    "apertus1p5": NOT_SMALL,
    "cohere_compass": NOT_SMALL,
    "deepseek_ocr2": NOT_SMALL,
    "diffusion_gemma": NOT_SMALL,
    "dots3_note": NOT_SMALL,
    "ernie4_5_vl_moe": "its rotary embedding cannot be built on a chosen device with initialisation left out",
    "evolla": "it takes proteins, no images",
    "fuyu": "its processor counts one image token fewer in the text than it tokenizes",
    "gemma4_unified": NOT_SMALL,
    "granite4_vision": NOT_SMALL,
    "instructblipvideo": "it takes videos, no images",
    "mistral4": "it is a language model: transformers has no processor for it",
    "pi0": "it controls a robot: its forward pass takes states and actions",
    "pp_chart2table": "its processor has no placeholder, and the one tried is not its own",
    "pp_formulanet": "its decoder takes formulas, which its processor does not make",
    "qwen4_exp": NOT_SMALL,
    "step3p7": "its default configuration and its default processor differ by the tokens of a tile",
    "udop": "its processor reads the words of a page by pytesseract",
    "unlimited_ocr": NOT_SMALL,
    "vision-encoder-decoder": "it has no processor of its own: any encoder, any decoder",
}
