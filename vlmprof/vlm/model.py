"""The VLM that is timed: a vision backbone, a connector and a language model, each its own stage.

images ──encode_image──▶ visual tokens ──project──▶ embeddings ──prefill──▶ logits

Decoding goes on from there: see `vlmprof.vlm.decoding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones import create_backbone
from vlmprof.backbones.facts import DEFAULT_LEVEL
from vlmprof.errors import unknown
from vlmprof.kernels import Backend
from vlmprof.vlm import llm_catalog
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.study_checkpoint import load_study_checkpoint

LOGITS = ("all", "last")


class VLM:
    """Three frozen parts and the prompt between them.

    Nothing here measures, or waits for the device unless a model's published code does (`vitdet`). No
    weight asks for a gradient; the caller chooses `torch.inference_mode` or `torch.no_grad` (for compiling).

    `prompt` holds the prompt's token ids, (prompt tokens,); the same prompt goes to every image of a batch,
    after its visual tokens.
    """

    def __init__(
        self,
        vision: nn.Module,
        connector: nn.Module,
        llm: PreTrainedModel | None,
        *,
        prompt: Tensor,
        logits: str = "all",
        autocast: torch.dtype | None = None,
        backends: Mapping[str, str] | None = None,
    ) -> None:
        if logits not in LOGITS:
            raise unknown("logits", logits, LOGITS)
        self.vision = vision
        self.connector = connector
        self.llm = llm
        self.logits = logits
        self.autocast = autocast
        """What vision and connector compute in while their weights are float32; None without autocast."""
        self.prompt = prompt
        self.backends = dict(backends or {})
        """Which implementation of each replaceable part runs, such as `{"ss2d": "torch"}`."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Stage `vision`: (batch, 3, height, width) to (batch, visual tokens, d_model)."""
        with self._precision(images):
            tokens: Tensor = self.vision(images)
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Stage `connector`: (batch, visual tokens, d_model) to (batch, visual tokens, hidden size)."""
        with self._precision(tokens):
            embeddings: Tensor = self.connector(tokens)
        return embeddings

    def prefill(self, embeddings: Tensor) -> Tensor:
        """Stage `prefill`: one forward pass of the LLM over visual and prompt tokens, no key–value cache.

        (batch, visual tokens, hidden size) to logits (batch, positions, vocabulary) in the model's dtype:
        every position for `all`, as the study did, the last one for `last`.
        """
        output = self.language(
            inputs_embeds=self.with_prompt(embeddings),
            use_cache=False,
            logits_to_keep=1 if self.logits == "last" else 0,
        )
        logits: Tensor = output.logits
        return logits

    def _precision(self, given: Tensor) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        # casts that autocast kept would be missing from a CUDA graph
        return torch.autocast(given.device.type, self.autocast, cache_enabled=False)

    @property
    def language(self) -> PreTrainedModel:
        """The LLM. Raises `ValueError` if it was left out."""
        if self.llm is None:
            raise ValueError("this VLM was built without its language model")
        return self.llm

    def weight_bytes(self) -> dict[str, int]:
        """Bytes of parameters and buffers of each stage: `vision`, `connector` and `prefill` (the LLM)."""
        parts = {"vision": self.vision, "connector": self.connector, "prefill": self.llm}
        return {stage: _weight_bytes(part) for stage, part in parts.items() if part is not None}

    def with_prompt(self, embeddings: Tensor) -> Tensor:
        """The LLM's input: visual embeddings, then the prompt's, (batch, positions, hidden size)."""
        if not self.prompt.numel():
            return embeddings
        prompt = self.language.get_input_embeddings()(self.prompt).to(embeddings.dtype)
        return torch.cat((embeddings, prompt.expand(embeddings.shape[0], -1, -1)), dim=1)


def create_vlm(
    backbone: str,
    llm: str,
    connector: str = "mlp2",
    *,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    level: int = DEFAULT_LEVEL,
    levels: str = "through-tap",
    kernels: Backend = "auto",
    attention: str = "sdpa",
    prompt_tokens: int = 0,
    logits: str = "all",
    autocast: bool = False,
    seed: int = 0,
    with_llm: bool = True,
    weights: str | None = None,
    study_checkpoint: str | None = None,
) -> VLM:
    """A VLM with random weights made on `device` in `dtype`, for images of height × width pixels.

    `weights` loads the backbone's from a file or the official ones (`create_backbone`), `study_checkpoint`
    the connector's and the LLM's from a file of the study's (`load_study_checkpoint`). With `autocast`
    vision and connector keep float32 weights, take float32 images and compute in `dtype`.
    The prompt is `prompt_tokens` random token ids. `with_llm=False` leaves the language model out, for
    timing what comes before it. Raises `UserError` for names, options and sizes that
    cannot be.
    """
    apart = torch.float32 if autocast else dtype
    vision = create_backbone(
        backbone,
        level=level,
        levels=levels,
        image_size=(height, width),
        device=device,
        dtype=apart,
        seed=seed,
        kernels=kernels,
        weights=weights,
    )
    known = llm_catalog.facts(llm)
    joint = create_connector(
        connector, vision.facts.embed_dim, known.hidden_size, device=device, dtype=apart, seed=seed
    )
    language = None
    if with_llm:
        language = create_llm(llm, device=device, dtype=dtype, attention=attention, seed=seed)
    if study_checkpoint is not None and language is not None:
        load_study_checkpoint(study_checkpoint, joint, language)
    generator = torch.Generator(device).manual_seed(seed)
    prompt = torch.randint(known.vocab_size, (prompt_tokens,), generator=generator, device=device)
    return VLM(
        vision, joint, language, prompt=prompt, logits=logits, autocast=dtype if autocast else None,
        backends=vision.backends,
    )  # fmt: skip


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
