"""Which of transformers' image-text-to-text types run with their own processors, and why others do not.

`tests/vlm/test_every_vlm.py` builds the types of `RUN` small, runs each on two photos and counts it without
weights. It also checks that those of `REFUSED` still fail for the reason given.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

TRIED_WITH = "5.24"
"""The version of transformers."""


@dataclass(frozen=True)
class Support:
    """Whether one type runs."""

    model_type: str
    runs: bool
    needs: tuple[str, ...] = ()
    """Packages required besides transformers and Pillow."""
    reason: str | None = None
    """Why it does not run, or runs without the stage `decode`."""

    @property
    def verdict(self) -> str:
        """`yes` or `no`."""
        return "yes" if self.runs else "no"


def all_support() -> list[Support]:
    """Return every type, in alphabetical order."""
    known = [
        Support(name, True, needs, reason=f"no stage decode: {why}" if why else None)
        for name, needs in RUN.items()
        for why in (why_no_decoding(name),)
    ]
    known += [Support(name, False, reason=reason) for name, reason in REFUSED.items()]
    return sorted(known, key=lambda support: support.model_type)


TORCHVISION = ("torchvision",)
TIMM = ("timm",)
NOTHING: tuple[str, ...] = ()

RUN: dict[str, tuple[str, ...]] = {
    "apertus1p5": TORCHVISION,
    "aria": NOTHING,
    "aya_vision": NOTHING,
    "blip": NOTHING,
    "blip-2": NOTHING,
    "chameleon": NOTHING,
    "cohere2_vision": TORCHVISION,
    "cohere_compass": NOTHING,
    "cosmos3_edge": NOTHING,
    "cosmos3_omni": NOTHING,
    "deepseek_ocr2": NOTHING,
    "deepseek_vl": NOTHING,
    "deepseek_vl_hybrid": NOTHING,
    "diffusion_gemma": NOTHING,
    "dots3_note": NOTHING,
    "emu3": NOTHING,
    "ernie4_5_vl_moe": NOTHING,
    "exaone4_5": NOTHING,
    "fast_vlm": TIMM,
    "florence2": NOTHING,
    "fuyu": TORCHVISION,
    "gemma3": NOTHING,
    "gemma3n": TIMM,
    "gemma4": NOTHING,
    "gemma4_unified": TORCHVISION,
    "git": NOTHING,
    "glm46v": NOTHING,
    "glm4v": NOTHING,
    "glm4v_moe": NOTHING,
    "glm5_next": NOTHING,
    "glm_ocr": NOTHING,
    "glmga": NOTHING,
    "got_ocr2": NOTHING,
    "granite4_vision": NOTHING,
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
    "mistral3": TORCHVISION,
    "mistral_large4": TORCHVISION,
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
    "pp_chart2table": NOTHING,
    "pp_formulanet": TORCHVISION,
    "qianfan_ocr": NOTHING,
    "qwen2_5_omni_thinker": NOTHING,
    "qwen2_5_vl": NOTHING,
    "qwen2_vl": NOTHING,
    "qwen3_5": NOTHING,
    "qwen3_5_moe": NOTHING,
    "qwen3_omni_moe_thinker": NOTHING,
    "qwen3_vl": NOTHING,
    "qwen3_vl_moe": NOTHING,
    "qwen4_exp": NOTHING,
    "shieldgemma2": NOTHING,
    "smolvlm": NOTHING,
    "step3p7": TORCHVISION,
    "t5gemma2": NOTHING,
    "unlimited_ocr": TORCHVISION,
    "video_llama_3": NOTHING,
    "video_llava": NOTHING,
    "vipllava": NOTHING,
}

REFUSED = {
    "evolla": "it takes proteins, no images",
    "instructblipvideo": "it takes videos, no images",
    "mistral4": "it is a language model: transformers has no processor for it",
    "pi0": "it controls a robot: its forward pass takes states and actions",
    "udop": "what its processor makes depends on the words that pytesseract reads on the page",
    "vision-encoder-decoder": "it joins any encoder to any decoder, and has no processor of its own",
}

WITHOUT_DECODING = {
    "blip": "it keeps no cache, and encodes the image again for each token",
    "diffusion_gemma": "it makes all tokens at once, by diffusion",
    "git": "it counts the positions of words apart from its cache, which holds the image too",
    "pp_formulanet": "its forward pass does not return the pooled image that each token attends to",
}
"""Types of `RUN` that cannot continue from a cache and one token, and why."""

DECODES_SINCE = {"mllama": (5, 24)}
"""The first minor version of transformers whose model takes the mask of a step alone."""


def why_no_decoding(model_type: str) -> str | None:
    """Return why a type of `RUN` cannot run the stage `decode` with this transformers; None if it can."""
    since = DECODES_SINCE.get(model_type)
    installed = tuple(int(part) for part in version("transformers").split(".")[:2])
    if since is not None and installed < since:
        return "transformers {}.{} or newer is needed".format(*since)
    return WITHOUT_DECODING.get(model_type)
