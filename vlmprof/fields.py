"""The fields of a specification: every axis and setting with its validation, default and help text.

TOML keys, command-line options and validation are all derived from these tables. A new axis needs an entry
here and code that reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from vlmprof.errors import UserError
from vlmprof.records import STAGES
from vlmprof.settings import (
    Attention,
    CacheState,
    Dtype,
    Fit,
    KernelBackend,
    LevelsRun,
    LLMPrecision,
    Logits,
    Mode,
    Order,
    Outputs,
    Processor,
    ProcessorBackend,
    Sampling,
    StageName,
    TilingMode,
)
from vlmprof.units import parse_bytes, parse_seconds


@dataclass(frozen=True)
class Field:
    """One field of a specification."""

    name: str
    help: str
    parse: Callable[[Any], Any]
    """Parses a TOML value or a command-line argument; raises `UserError`."""
    default: Any = None
    many: bool = False
    """Whether a setting is a list of values. Axes always are."""
    unit: str = ""
    """Unit of the stored value, such as `s`. User input carries its own unit."""
    shown_default: str | None = None
    """The default for help texts, where `default` itself does not say."""

    @property
    def attribute(self) -> str:
        """The field's name in `Axes`, `Settings` and `run.json`, including its unit."""
        return f"{self.name}_{self.unit}" if self.unit else self.name

    @property
    def choices(self) -> tuple[str, ...]:
        """The accepted words, if there is a fixed set."""
        return self.parse.words if isinstance(self.parse, _Choice) else ()

    def read(self, value: Any) -> Any:
        """Validate a value; None only if that is the default. Raises `UserError` with the field's name."""
        if value is None and self.default is None:
            return None
        try:
            return self.parse(value)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{value!r} is not a name")
    return value.strip()


def _hf_vlm(value: Any) -> str:
    name = _text(value)
    if not name.startswith("hf:"):
        raise UserError(f"{name!r} is not a VLM from transformers; write hf:NAME or hf:PATH of a config")
    return name


@dataclass(frozen=True)
class _Choice:
    """A parser that accepts one of a fixed set of words."""

    words: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        if value not in self.words:
            raise UserError(f"{value!r} is not one of {', '.join(self.words)}")
        return str(value)


def _choice(literal: Any) -> _Choice:
    """Return a parser for the words of a `Literal` in `settings`."""
    return _Choice(get_args(literal))


LARGEST_SIDE_PX = 2**20
"""Largest accepted side of an image in pixels; larger numbers are typing mistakes."""
MOST_TILES = 1024
MOST_FRAMES = 2**16
MOST_POSITIONS = 2**30
_MOST_DIGITS = 30
"""Python refuses to convert very long numbers."""


def _integer(minimum: int, maximum: int = 2**31 - 1, nor: str = "") -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        text = str(value)
        natural = not isinstance(value, bool) and re.fullmatch(r"\+?\d+|-0+", text) is not None
        if natural and (len(text) > _MOST_DIGITS or int(text) > maximum):
            raise UserError(f"{value!r} is too large; the largest is {maximum}")
        if not natural or int(text) < minimum:
            raise UserError(f"{value!r} is not an integer of at least {minimum}{nor}")
        return int(text)

    return parse


def _integer_or(word: str, maximum: int = 2**31 - 1) -> Callable[[Any], int | str]:
    integer = _integer(1, maximum, f", nor {word}")
    return lambda value: word if value == word else integer(value)


def _share(value: Any) -> float:
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UserError(f"{value!r} is not a fraction between 0 and 1; write 1% or 0.01")
    return share


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is not true or false")
    return value


def parse_resolution(value: Any) -> str:
    """Normalize a resolution: `512` for a square, otherwise `1333x800`, width by height in pixels."""
    match = re.fullmatch(r"\s*0*([1-9]\d*)\s*(?:[x×]\s*0*([1-9]\d*))?\s*", str(value), re.ASCII)
    if match is None or isinstance(value, bool):
        raise UserError(f"{value!r} is not a resolution; write 512, or 1333x800 for width by height")
    if any(len(side) > _MOST_DIGITS or int(side) > LARGEST_SIDE_PX for side in match.groups() if side):
        raise UserError(f"{value!r} is too large: a side has at most {LARGEST_SIDE_PX} pixels")
    width, height = int(match[1]), int(match[2] or match[1])
    return str(width) if width == height else f"{width}x{height}"


def resolution_size(resolution: str) -> tuple[int, int]:
    """Return (height, width) in pixels of a normalized resolution."""
    width, _, height = resolution.partition("x")
    return int(height or width), int(width)


AXES: dict[str, Field] = {
    axis.name: axis
    for axis in (
        Field("vlm", "VLM from transformers instead of backbone, connector and llm: hf:NAME or hf:PATH.",
              _hf_vlm),
        Field("backbone", "Vision backbone, such as vmamba-t or vit-b.", _text),
        Field("resolution", "Image size: 512, or 1333x800 for width by height.", parse_resolution),
        Field("llm", "Language model: a known name, a transformers config file, or hf:NAME.", _text),
        Field("connector", "From vision to language: linear, mlp2 or mlp3; with fewer visual tokens: pool2, "
              "pool4, pixel-shuffle2, pixel-shuffle4, resampler-64, -144 or -256, c-abstractor, ldpv2.",
              _text, "mlp2"),
        Field("dtype", "Data type of all weights and activations.", _choice(Dtype), "bfloat16"),
        Field("batch_size", "Images per call.", _integer(1, 2**20), 1),
        Field("mode", "Execution mode. compile uses torch.compile, graphs uses CUDA graphs.",
              _choice(Mode), "eager"),
        Field("attention", "Backend of scaled-dot-product attention.", _choice(Attention), "auto"),
        Field("kernel_backend", "SS2D implementation. The fused triton kernels need a GPU.",
              _choice(KernelBackend), "auto"),
        Field("cache", "State of the caches. cold flushes them before every iteration.",
              _choice(CacheState), "hot"),
        Field("level", "Feature level of a hierarchical backbone that feeds the LLM; last is its coarsest.",
              _integer_or("last"), 3),
        Field("levels", "Levels of a hierarchical backbone to run: through that level, or all.",
              _choice(LevelsRun), "through-tap"),
        Field("tiling", "Tiles that photos of the resolution are cut into: anyres as LLaVA-NeXT, with rows "
              "ended by a token, or dynamic as InternVL.", _choice(TilingMode), "none"),
        Field("tile_size", "Side of a tile in pixels; auto is 336 for anyres and 448 for dynamic.",
              _integer_or("auto", LARGEST_SIDE_PX), "auto"),
        Field("max_tiles", "Most tiles of a photo, without the thumbnail; auto is 4 for anyres and 12 for "
              "dynamic.", _integer_or("auto", MOST_TILES), "auto"),
        Field("frames", "Frames of each video, encoded one by one; their visual tokens follow each other.",
              _integer(1, MOST_FRAMES), 1),
        Field("prefill_chunk", "Tokens that prefill gives the LLM at once, with a key-value cache; none for "
              "all of them, without a cache.", _integer_or("none", MOST_POSITIONS), "none"),
        Field("llm_precision", "Precision of the LLM's linear layers, except the output layer: that of "
              "dtype, or quantized by torchao.", _choice(LLMPrecision), "as-dtype"),
    )
}  # fmt: skip
"""Every axis of a sweep: the varied parameters, each with one or more values."""

SETTINGS: dict[str, Field] = {
    setting.name: setting
    for setting in (
        Field("sampling", "Sample until the medians are precise, or for a fixed number of iterations.",
              _choice(Sampling), shown_default="adaptive, or fixed with --warm-up or --iterations"),
        Field("warm_up", "Discarded iterations.", _integer(0), shown_default="until settled"),
        Field("iterations", "Measured iterations; an upper bound with adaptive sampling.",
              _integer(1), shown_default="until precise"),
        Field("target", "Adaptive: relative half-width of the medians' 95 % intervals to reach.",
              _share, 0.01, shown_default="1%"),
        Field("budget", "Adaptive: longest time to measure one cell.", parse_seconds, "15s", unit="s",
              shown_default="15s"),
        Field("least", "Adaptive: shortest time to measure one cell; energy needs more than 1s.",
              parse_seconds, unit="s", shown_default="0.5s"),
        Field("profile", "Run one more iteration under the profiler to measure how long the GPU is busy.",
              _flag, True),
        Field("order", "Order in which cells run. interleaved goes from small to large across lines.",
              _choice(Order), "lines"),
        Field("share_llm", "Measure the LLM once per shape and share the result between backbones.",
              _flag, False),
        Field("stages", "Stages of one iteration.", _choice(StageName), STAGES[:4], many=True,
              shown_default="all but decode"),
        Field("prompt_tokens", "Text tokens in addition to the visual ones.", _integer(0), 0),
        Field("new_tokens", "Tokens to generate in the decode stage.", _integer(1), 32),
        Field("logits", "Positions to compute logits for.", _choice(Logits), "all"),
        Field("autocast", "Keep vision and connector weights in float32 and run them under torch.autocast.",
              _flag, False),
        Field("outputs", "When the outputs of an iteration are freed: before the next one, or after it.",
              _choice(Outputs), "freed"),
        Field("frame_batch", "Frames that the encoder is given at once, of all videos of the batch.",
              _integer(1, 2**20), shown_default="all"),
        Field("seed", "Seed for weights, prompt and generated image.", _integer(0, 2**64 - 1), 0),
        Field("weights", "Backbone weights: pretrained, or the path of a checkpoint.",
              _text, shown_default="random"),
        Field("study_checkpoint", "Released checkpoint of the study to load connector and LLM from.", _text),
        Field("image", "Image file to preprocess.", _text, shown_default="a generated image"),
        Field("fit", "How images are fitted to the resolution. letterbox keeps the aspect ratio; pad resizes "
              "and then pads to the next size that the backbone accepts.", _choice(Fit), "resize"),
        Field("processor", "Of a vlm: own, which tiles, pads and packs photos of the resolution; one-piece, "
              "images of the resolution as they are.", _choice(Processor), "own"),
        Field("processor_backend", "Of a vlm: pil, torchvision, or auto for torchvision where installed.",
              _choice(ProcessorBackend), "auto"),
        Field("device", "Device: auto, cpu, cuda, or another accelerator known to torch.", _text, "auto"),
        Field("memory_limit", "Limit the memory to that of a smaller device, such as 24GiB.",
              parse_bytes, unit="bytes", shown_default="none"),
        Field("cell_timeout", "Time limit for one cell, such as 10min.", parse_seconds,
              unit="s", shown_default="none"),
        Field("cool_down", "Wait before repeating a cell that the machine disturbed, such as 30s.",
              parse_seconds, unit="s", shown_default="do not repeat"),
        Field("run_after_oom", "Run larger cells of a line that ran out of memory.", _flag, False),
    )
}  # fmt: skip
"""Every setting of a sweep: parameters shared by all its cells."""


def option(name: str) -> str:
    """Return a field's command-line option: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")
