"""What some architectures of transformers need beyond the general rules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch


def _with_decoder(inputs: dict[str, Any], config: Any) -> dict[str, Any]:
    """Add the token that the decoder of an encoder-decoder model starts from."""
    batch_size = len(inputs["pixel_values"])
    start = torch.zeros(batch_size, 1, dtype=torch.long, device=inputs["pixel_values"].device)
    return {**inputs, "decoder_input_ids": start}


def _with_canvas(inputs: dict[str, Any], config: Any) -> dict[str, Any]:
    """Add the tokens that a diffusion model starts from, which it would otherwise draw at random."""
    ids = inputs["input_ids"]
    return {**inputs, "decoder_input_ids": ids.new_zeros(ids.shape[0], config.canvas_length)}


def _with_image_outputs(model: Any) -> None:
    """Add `image_outputs`, which transformers 5.24 reads from the output of Llama 4's language model."""

    def add(module: Any, given: Any, output: Any) -> None:
        if not hasattr(output, "image_outputs"):
            output.image_outputs = None

    model.language_model.register_forward_hook(add)


@dataclass(frozen=True)
class Architecture:
    """The exceptions of one architecture."""

    processor: str | None = None
    """Its processor's class, where transformers' table has none."""
    image_processor: Mapping[str, str] = field(default_factory=dict)
    """Its image processor's classes by backend, where transformers' table has none."""
    placeholder: str | None = None
    """The placeholder of an image in a text, if not the processor's `image_token`."""
    text: str = "{image}{words}"
    """The prompt."""
    words: Mapping[str, str | int] = field(default_factory=dict)
    """Special tokens that are not attributes of the processor, with an id or its key in the configuration."""
    unnamed: tuple[str, ...] = ()
    """Special tokens that must not be attributes of its tokenizer."""
    underscored: bool = False
    """Whether its processor expects a tokenizer that starts every text with a token for a space."""
    processor_arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    image_arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    image_attributes: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Arguments of the processor and of the image processor, and attributes of the latter, from the
    configuration."""
    nested: bool = False
    """Whether the processor takes a list of images for each text."""
    mend: Callable[[Any], None] = lambda model: None
    """Called with the model after it is built."""
    repeated: int = 1
    """How often the placeholder is in the text, if the processor does not expand it."""
    image_id: str = "image_token"
    """The token that is counted as visual; empty if the language model cross-attends to the image."""
    language: str | None = None
    """The path of the language model, if `get_decoder` returns something else."""
    completed: Callable[[dict[str, Any], Any], dict[str, Any]] = lambda inputs, config: inputs
    """Turns the processor's outputs and the configuration into the inputs of the forward pass."""
    prepare: Callable[[], None] = lambda: None
    """Called before the processor is built."""


def architecture(model_type: str) -> Architecture:
    """Return the exceptions of an architecture; most have none."""
    return ARCHITECTURES.get(model_type, Architecture())


def for_its_tower(known: Architecture, config: Any) -> Architecture:
    """Return the exceptions of a configuration: LLaVA with Pixtral's tower has Pixtral's processor."""
    if config.model_type == "llava" and getattr(config.vision_config, "model_type", "") == "pixtral":
        return replace(known, processor="PixtralProcessor", image_processor=_family("Pixtral"))
    return known


def vision_config(config: Any) -> Any:
    """Return the configuration of the encoder, if it has its own."""
    for holder in (config, getattr(config, "encoder", None)):
        if (found := getattr(holder, "vision_config", None)) is not None:
            return found
    return None


def _timm_patch(config: Any) -> int:
    """Return the side of a patch of a timm encoder, from its arguments or its name."""
    vision = config.vision_config
    given = (vision.model_args or {}).get("patch_size")
    return int(given or re.findall(r"patch(\d+)", vision.architecture)[-1])


def first_side(size: Any) -> Any:
    """Return the first side of a size, which configurations write as a number or as a list."""
    return size[0] if isinstance(size, list | tuple) else size


def _side(config: Any) -> int:
    """Return the side in pixels of the images that the encoder was made for."""
    return int(first_side(config.vision_config.image_size))


def _patch_side(config: Any) -> int:
    """Return the side of a patch in pixels."""
    return int(first_side(config.vision_config.patch_size))


def _patches(config: Any) -> int:
    """Return the number of patches of such an image."""
    return (_side(config) // _patch_side(config)) ** 2


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _class_tokens(config: Any) -> int:
    """Return the number of class tokens: 1 for CLIP, 0 for SigLIP and Pixtral."""
    return int("clip" in config.vision_config.model_type)


def _without_num2words() -> None:
    """Let SmolVLM's processor, which spells out numbers of frames, be built without num2words."""
    processing_smolvlm: Any = importlib.import_module("transformers.models.smolvlm.processing_smolvlm")

    if not processing_smolvlm.num2words:
        processing_smolvlm.num2words = str


def _aria_queries(config: Any) -> dict[int, int]:
    """Return the number of visual tokens by the side of a tile."""
    queries = {int(patches): count for patches, count in config.projector_patch_to_query_dict.items()}
    return {_side(config): queries[_patches(config)]} if _patches(config) in queries else {}


def _family(name: str) -> dict[str, str]:
    return {"torchvision": f"{name}ImageProcessor", "pil": f"{name}ImageProcessorPil"}


LLAVA = Architecture(processor_arguments={"num_additional_image_tokens": _class_tokens})
IDEFICS3: dict[str, Any] = {
    "image_arguments": {
        "max_image_size": lambda config: {"longest_edge": _side(config)},
        "size": lambda config: {"longest_edge": 4 * _side(config)},
    },
    "processor_arguments": {
        "image_seq_len": lambda config: _patches(config) // config.scale_factor**2,
    },
    "nested": True,
}
QWEN3: dict[str, Any] = {"processor": "Qwen3VLProcessor", "image_processor": _family("Qwen2VL")}
QUERIES = Architecture(unnamed=("image_token",), words={"<image>": "image_token_index"}, placeholder="")
IMAGE_TOKENS = Architecture(processor_arguments={"num_image_tokens": _patches})
NESTED = Architecture(nested=True)
GEMMA3 = Architecture(words={"<image>": "image_token_index", "<boi>": 92}, nested=True)
DAVIT_STRIDE = 32

ARCHITECTURES: dict[str, Architecture] = {
    "aria": Architecture(
        image_arguments={"max_image_size": _side},
        processor_arguments={"size_conversion": _aria_queries},
    ),
    "blip": Architecture(placeholder=""),
    "blip-2": QUERIES,
    "instructblip": QUERIES,
    "cosmos3_omni": Architecture(**QWEN3),
    "deepseek_vl": IMAGE_TOKENS,
    "deepseek_vl_hybrid": IMAGE_TOKENS,
    "diffusion_gemma": Architecture(
        image_processor=_family("Gemma4"), language="model.encoder.language_model", completed=_with_canvas,
        nested=True,
    ),
    "dots3_note": Architecture(image_arguments={"temporal_patch_size": lambda _: 1}),
    "fast_vlm": Architecture(
        processor="LlavaProcessor",
        image_processor=_family("CLIP"),
        image_arguments={"size": lambda _: {"shortest_edge": 1024}, "crop_size": lambda _: _square(1024)},
        processor_arguments={"patch_size": lambda _: 64, "num_additional_image_tokens": lambda _: 0},
    ),
    "florence2": Architecture(
        placeholder="",
        language="model.language_model.encoder",
        image_arguments={"size": lambda _: _square(768), "crop_size": lambda _: _square(768)},
        image_attributes={"image_seq_length": lambda _: (768 // DAVIT_STRIDE) ** 2 + 1},
    ),
    "fuyu": Architecture(
        # the one of PIL fails: it takes its own NumPy arrays for tensors
        image_processor={"torchvision": "FuyuImageProcessor"}, placeholder="", underscored=True,
        words={"|SPEAKER|": "image_token_id", "|NEWLINE|": 5},
    ),
    "git": Architecture(placeholder="", language="git.encoder"),
    "glm4v_moe": Architecture(image_processor=_family("Glm4v")),
    "glm_ocr": Architecture(processor="Glm46VProcessor", image_processor=_family("Glm46V")),
    "glmga": Architecture(processor="Glm46VProcessor"),
    "hunyuan_vl": Architecture(text="<image_start>{image}<image_end>{words}"),
    "idefics": Architecture(placeholder="", language="model.gated_cross_attn_layers.0"),
    "idefics2": NESTED,
    "idefics3": Architecture(**IDEFICS3),
    "smolvlm": Architecture(**IDEFICS3, prepare=_without_num2words),
    "pp_formulanet": Architecture(placeholder="", completed=_with_decoder),
    "step3p7": Architecture(
        image_arguments={"patch_size": lambda _: 504, "vision_patch_size": _patch_side},
    ),
    "pp_chart2table": Architecture(
        placeholder="<imgpad>", words={"<imgpad>": "image_token_index"}, repeated=256
    ),
    "kosmos-2": Architecture(processor="Kosmos2Processor"),
    "kosmos-2.5": Architecture(processor="Kosmos2_5Processor"),
    "cohere_compass": Architecture(
        unnamed=("image_token", "video_token", "vision_start_token", "vision_end_token")
    ),
    "llama4": Architecture(
        words={"<|patch|>": "image_token_index", "<|image|>": 92}, mend=_with_image_outputs
    ),
    "gemma3": GEMMA3,
    "gemma4": NESTED,
    "gemma4_unified": NESTED,
    "lfm2_vl": NESTED,
    "t5gemma2": replace(GEMMA3, language="model.encoder.text_model", completed=_with_decoder),
    "shieldgemma2": replace(GEMMA3, processor="Gemma3Processor"),
    "mllama": Architecture(image_id="", nested=True),
    "perception_lm": Architecture(processor_arguments={"patch_size": _timm_patch}),
    "llava": LLAVA,
    "llava_next": LLAVA,
    "llava_next_video": LLAVA,
    "granite4_vision": LLAVA,
    "vipllava": Architecture(
        processor_arguments={
            "num_additional_image_tokens": _class_tokens,
            "vision_feature_select_strategy": lambda _: "default",
        }
    ),
    "llava_onevision": IMAGE_TOKENS,
    "molmo2": Architecture(
        words={
            "<im_patch>": "image_patch_id", "<im_col>": 91, "<im_start>": "image_start_token_id",
            "<low_res_im_start>": "low_res_image_start_token_id", "<im_end>": "image_end_token_id",
            "<frame_start>": "frame_start_token_id", "<frame_end>": "frame_end_token_id",
            "<im_low>": 90, "<|image|>": 92, "<|video|>": 93,
        },
        unnamed=("image_token", "video_token"),
    ),
    "ovis2": Architecture(words={"<IMG_ATOM>": "image_token_id", "<image>": 99}, placeholder="<image>"),
    "paligemma": Architecture(image_attributes={"image_seq_length": _patches}),
    "qianfan_ocr": Architecture(placeholder="<image>"),
    "qwen2_5_omni_thinker": Architecture(
        processor="Qwen2_5_VLProcessor", image_processor=_family("Qwen2VL")
    ),
    "qwen3_omni_moe_thinker": Architecture(**QWEN3),
    "qwen3_vl_moe": Architecture(**QWEN3),
}  # fmt: skip
