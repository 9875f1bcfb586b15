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
    known = []
    for name, needs in RUN.items():
        why = why_no_decoding(name)
        known.append(Support(name, True, needs, reason=f"no stage decode: {why}" if why else None))
    known += [Support(name, False, reason=reason) for name, reason in REFUSED.items()]
    return sorted(known, key=lambda support: support.model_type)


_TYPES = (
    "apertus1p5", "aria", "aya_vision", "blip", "blip-2", "chameleon", "cohere2_vision", "cohere_compass",
    "cosmos3_edge", "cosmos3_omni", "deepseek_ocr2", "deepseek_vl", "deepseek_vl_hybrid", "diffusion_gemma",
    "dots3_note", "emu3", "ernie4_5_vl_moe", "exaone4_5", "fast_vlm", "florence2", "fuyu", "gemma3",
    "gemma3n", "gemma4", "gemma4_unified", "git", "glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr",
    "glmga", "got_ocr2", "granite4_vision", "granite_docling", "hunyuan_vl", "hy_v4_vl",
    "hyperclovax_vision_v2", "idefics", "idefics2", "idefics3", "inkling2", "inkling2_loop",
    "inkling_mm_model", "instructblip", "internvl", "janus", "kimi_k25", "kosmos-2", "kosmos-2.5",
    "lfm2_vl", "lfm3_vl", "lighton_ocr", "llama4", "llava", "llava_next", "llava_next_video",
    "llava_onevision", "minicpm_ocr", "minicpmv4_6", "minicpmv4_7", "minimax_m3_vl", "mistral3",
    "mistral_large4", "mllama", "molmo2", "muse_glimmer", "muse_spark", "nemotron_h_omni", "ovis2",
    "paddleocr_vl", "paligemma", "perception_lm", "pix2struct", "pp_chart2table", "pp_formulanet",
    "qianfan_ocr", "qwen2_5_omni_thinker", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe",
    "qwen3_omni_moe_thinker", "qwen3_vl", "qwen3_vl_moe", "qwen4_exp", "shieldgemma2", "smolvlm", "step3p7",
    "t5gemma2", "unlimited_ocr", "video_llama_3", "video_llava", "vipllava",
)  # fmt: skip
_WITH_TORCHVISION = (
    "apertus1p5", "cohere2_vision", "fuyu", "gemma4_unified", "inkling2", "inkling2_loop",
    "inkling_mm_model", "kimi_k25", "lfm2_vl", "llama4", "minicpm_ocr", "minimax_m3_vl", "mistral3",
    "mistral_large4", "molmo2", "muse_glimmer", "muse_spark", "nemotron_h_omni", "pp_formulanet",
    "step3p7", "unlimited_ocr",
)  # fmt: skip
_NEEDS = {
    **dict.fromkeys(_WITH_TORCHVISION, ("torchvision",)),
    "fast_vlm": ("timm",),
    "gemma3n": ("timm",),
    "perception_lm": ("torchvision", "timm"),
}
RUN: dict[str, tuple[str, ...]] = {name: _NEEDS.get(name, ()) for name in _TYPES}
"""The types that run, and the packages that each requires besides transformers and Pillow."""

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
