"""The fields of a specification: every axis and setting with its check, its default and its help.

This is the one place where a field is declared. The TOML keys, the command-line options and the checks
all come from these tables, so a new axis needs an entry here and a reader of it.
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
    Logits,
    Mode,
    Order,
    Outputs,
    Processor,
    ProcessorBackend,
    Sampling,
    Stage,
)
from vlmprof.units import parse_bytes, parse_seconds


@dataclass(frozen=True)
class Field:
    """One field of a specification."""

    name: str
    help: str
    parse: Callable[[Any], Any]
    """From a TOML value or a command-line word; raises `UserError`."""
    default: Any = None
    many: bool = False
    """Whether the setting is a list of values. Axes always are."""
    unit: str = ""
    """Of what is stored, such as `s`: what a user writes says its own."""

    @property
    def attribute(self) -> str:
        """The field's name in `Axes`, `Settings` and `run.json`: with its unit."""
        return f"{self.name}_{self.unit}" if self.unit else self.name

    def read(self, value: Any) -> Any:
        """The checked value. Raises `UserError` naming the field."""
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
        raise UserError(f"{name!r} is no VLM of transformers; write hf:NAME, or hf: and a config's path")
    return name


def _choice(choices: Any) -> Callable[[Any], str]:
    """One of the words of a `Literal` of `settings`."""
    known = get_args(choices)

    def parse(value: Any) -> str:
        if value not in known:
            raise UserError(f"{value!r} is not one of {', '.join(known)}")
        return str(value)

    return parse


def _integer(minimum: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?\d+", str(value)) or int(value) < minimum:
            raise UserError(f"{value!r} is not a whole number of at least {minimum}")
        return int(value)

    return parse


def _share(value: Any) -> float:
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UserError(f"{value!r} is not a share; write 1% or 0.01")
    return share


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{value!r} is not true or false")
    return value


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def parse_resolution(value: Any) -> str:
    """A resolution as it is kept: `512` for a square, else `1333x800`, width by height in pixels."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:[x×]\s*(\d+))?\s*", str(value))
    if match is None or isinstance(value, bool) or "0" in {match[1].lstrip("0") or "0", match[2]}:
        raise UserError(f"{value!r} is not a resolution; write 512, or 1333x800 for width by height")
    width, height = int(match[1]), int(match[2] or match[1])
    return str(width) if width == height else f"{width}x{height}"


def resolution_size(resolution: str) -> tuple[int, int]:
    """(height, width) in pixels of a resolution as it is kept."""
    width, _, height = resolution.partition("x")
    return int(height or width), int(width)


AXES: dict[str, Field] = {
    axis.name: axis
    for axis in (
        Field("vlm", "A VLM of transformers instead of the three parts: hf:NAME-or-path.", _hf_vlm),
        Field("backbone", "Vision backbone, such as vmamba-t or vit-b.", _text),
        Field("resolution", "Image size: 512, or 1333x800 for width by height.", parse_resolution),
        Field("llm", "Language model: a known name, a transformers config file, or hf:NAME.", _text),
        Field("connector", "Projection between them: linear, mlp2 or mlp3.", _text, "mlp2"),
        Field("dtype", "Number format of all weights and activations.",
              _choice(Dtype), "bfloat16"),
        Field("batch_size", "Images per call.", _integer(1), 1),
        Field("mode", "How it runs: eager, compile (torch.compile), or graphs (CUDA graphs).",
              _choice(Mode), "eager"),
        Field("attention", "Scaled-dot-product attention backend: auto, flash, efficient, cudnn or math.",
              _choice(Attention), "auto"),
        Field("kernel_backend", "Scan kernels: auto, reference, torch, or triton (fused, needs a GPU).",
              _choice(KernelBackend), "auto"),
        Field("cache", "hot, or cold: caches flushed before every iteration.", _choice(CacheState), "hot"),
        Field("level", "Feature level that hierarchical backbones are tapped at.", _integer(1), 3),
        Field("levels", "For backbones tapped below their top: run through-tap, or all levels.",
              _choice(LevelsRun), "through-tap"),
    )
}  # fmt: skip
"""Every axis of a sweep: varied parameters, each with one or more values."""

SETTINGS: dict[str, Field] = {
    setting.name: setting
    for setting in (
        Field("sampling", "adaptive, or fixed: exactly warm_up + iterations; fixed if either is given.",
              _optional(_choice(Sampling))),
        Field("warm_up", "Discarded iterations; until settled by default when adaptive.",
              _optional(_integer(0))),
        Field("iterations", "Measured iterations; the most there may be when adaptive.",
              _optional(_integer(1))),
        Field("target", "Adaptive: half-width of the medians' 95 % intervals to reach, such as 1%.",
              _share, 0.01),
        Field("budget", "Adaptive: longest time to measure one cell for, such as 15s.", parse_seconds, 15.0,
              unit="s"),
        Field("least", "Adaptive: shortest such time, 0.5s by default; energy takes more than 1s.",
              _optional(parse_seconds), unit="s"),
        Field("profile", "Run one more iteration under the profiler, for the time that the GPU was busy.",
              _flag, True),
        Field("order", "Cells line by line, interleaved by resolution, or in random order.",
              _choice(Order), "lines"),
        Field("share_llm", "Measure the LLM once per shape and share it between backbones.", _flag, False),
        Field("stages", "Stages of one iteration.", _choice(Stage), STAGES[:4], many=True),
        Field("prompt_tokens", "Text tokens beside the visual ones.", _integer(0), 0),
        Field("new_tokens", "Tokens that the decode stage makes.", _integer(1), 32),
        Field("logits", "Positions to compute logits for.", _choice(Logits), "all"),
        Field("autocast", "Keep vision and connector in float32 and run them under torch.autocast to dtype.",
              _flag, False),
        Field("outputs", "What an iteration returned is freed before the next one, or kept until its end.",
              _choice(Outputs), "freed"),
        Field("seed", "Seed of weights, prompt and generated image.", _integer(0), 0),
        Field("weights", "Backbone's weights: pretrained, or a checkpoint's path; random by default.",
              _optional(_text)),
        Field("study_checkpoint", "A released checkpoint of the study: connector and LLM from it.",
              _optional(_text)),
        Field("image", "Image file to preprocess; a generated one by default.", _optional(_text)),
        Field("fit", "How an image is brought to the resolution: resize, letterbox (its aspect kept) or pad "
              "(resized, then padded to the next size that the backbone takes).",
              _choice(Fit), "resize"),
        Field("processor", "Of a vlm: own, which tiles, pads and packs photos of the resolution; one-piece, "
              "images of the resolution as they are.", _choice(Processor), "own"),
        Field("processor_backend", "Of a vlm: pil, torchvision, or auto for torchvision where installed.",
              _choice(ProcessorBackend), "auto"),
        Field("device", "auto, cpu, cuda, or another accelerator torch knows.", _text, "auto"),
        Field("memory_limit", "Behave like a device with this much memory, such as 24GiB.",
              _optional(parse_bytes), unit="bytes"),
        Field("cell_timeout", "Longest time for one cell, such as 10min.", _optional(parse_seconds),
              unit="s"),
        Field("cool_down", "Wait so long and measure once more when the machine disturbed a cell.",
              _optional(parse_seconds), unit="s"),
        Field("run_after_oom", "Run larger resolutions of a line that ran out of memory.", _flag, False),
    )
}  # fmt: skip
"""What is the same for every cell."""


def option(name: str) -> str:
    """A field's command-line option: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")
