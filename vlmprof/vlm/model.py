"""The VLM that is timed: a vision backbone, a connector and a language model, each its own stage.

images ──encode_image──▶ encoder tokens ──project──▶ visual tokens ──prefill──▶ logits

Decoding goes on from there: see `vlmprof.vlm.decoding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones import create_backbone
from vlmprof.backbones import facts as backbone_facts
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import unknown
from vlmprof.settings import Dtype, Logits
from vlmprof.vlm import llm_catalog
from vlmprof.vlm.attention import check_attention
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.connector_catalog import facts as connector_facts
from vlmprof.vlm.frames import VideoConnector
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_config import state_of
from vlmprof.vlm.quantization import quantize, stored_tensors
from vlmprof.vlm.study_checkpoint import load_study_checkpoint
from vlmprof.vlm.tiled import TiledConnector
from vlmprof.vlm.workload import Workload


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
        logits: Logits = "all",
        prefill_chunk: int | None = None,
        autocast: torch.dtype | None = None,
        backends: Mapping[str, str] | None = None,
    ) -> None:
        if logits not in get_args(Logits):
            raise unknown("logits", logits, get_args(Logits))
        self.vision = vision
        self.connector = connector
        self.llm = llm
        self.logits = logits
        self.prefill_chunk = prefill_chunk
        self.autocast = autocast
        """What vision and connector compute in while their weights are float32; None without autocast."""
        self.prompt = prompt
        self.backends = dict(backends or {})
        """Which implementation of each replaceable part runs, such as `{"ss2d": "torch"}`."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Stage `vision`: (pictures, 3, height, width) to (pictures, encoder tokens, d_model), of a batch of
        images, or of all tiles and frames."""
        with self._precision(images):
            tokens: Tensor = self.vision(images)
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Stage `connector`: the output of `encode_image` to (batch, visual tokens, hidden size)."""
        with self._precision(tokens):
            embeddings: Tensor = self.connector(tokens)
        # autocast leaves a norm's output, the last of a resampler, in float32
        return embeddings if self.autocast is None else embeddings.to(self.autocast)

    def prefill(self, embeddings: Tensor) -> Tensor:
        """Stage `prefill`: one forward pass of the LLM over visual and prompt tokens, no key–value cache.

        (batch, visual tokens, hidden size) to logits (batch, positions, vocabulary) in the model's dtype:
        every position for `all`, as the study did, the last one for `last`. With `prefill_chunk`, one pass
        for each chunk of positions, with a cache; the logits are those of the last chunk.
        """
        logits: Tensor = self.pass_llm(embeddings, use_cache=self.prefill_chunk is not None).logits
        return logits

    def pass_llm(self, embeddings: Tensor, use_cache: bool) -> Any:
        """The LLM's output for visual and prompt tokens; with `prefill_chunk`, for the last chunk of them.

        The chunks before it fill the cache; their logits are freed.
        """
        given = self.with_prompt(embeddings)
        # not every model can be told of which positions to give logits
        kept = {"logits_to_keep": 1} if self.logits == "last" else {}
        output: Any = None
        state: dict[str, Any] = {}
        for chunk in given.split(self.prefill_chunk or given.shape[1], dim=1):
            del output  # the next chunk needs the cache, but no logits
            output = self.language(inputs_embeds=chunk, use_cache=use_cache, **state, **kept)
            name = state_of(output)
            state = {} if name is None else {name: output[name]}
        return output

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


def create_vlm(workload: Workload, device: torch.device | str = "cpu") -> VLM:
    """The VLM of a workload, frozen, with random weights made on `device`.

    `workload.weights` loads the backbone's from a file or the official ones (`create_backbone`),
    `workload.study_checkpoint` the connector's and the LLM's from a file of the study's
    (`load_study_checkpoint`). With `autocast` vision and connector keep float32 weights, take float32 images
    and compute in `dtype`. The prompt is `prompt_tokens` random token ids. The language model is left out
    where no stage needs it. Raises `UserError` for names, options and sizes that cannot be.
    """
    check_llm(workload)
    vision = build_vision(workload, device, workload.encoder_size)
    check_attention(workload.backbone, vision, workload.attention)
    connector = build_connector(workload, device)
    language = build_llm(workload, device) if {"prefill", "decode"} & {*workload.stages} else None
    if workload.study_checkpoint is not None and language is not None:
        load_study_checkpoint(workload.study_checkpoint, connector, language)
        if workload.llm_precision != "as-dtype":
            quantize(language, workload.llm_precision)
    connector = joining(connector, workload, device)
    prompt = torch.randint(
        llm_catalog.facts(workload.llm).vocab_size,
        (workload.prompt_tokens,),
        generator=torch.Generator(device).manual_seed(workload.seed),
        device=device,
    )
    return VLM(
        vision,
        connector,
        language,
        prompt=prompt,
        logits=workload.logits,
        prefill_chunk=workload.prefill_chunk,
        autocast=torch_dtype(workload.dtype) if workload.autocast else None,
        backends=vision.backends,
    )


def check_llm(workload: Workload) -> None:
    """Raise `UserError` for an unknown language model, or one that does not do what the workload asks for."""
    llm_catalog.check(
        workload.llm,
        workload.stages,
        workload.logits,
        workload.attention,
        in_chunks=workload.prefill_chunk is not None,
    )


def build_vision(
    workload: Workload, device: torch.device | str, image_size: tuple[int, int] | None
) -> Backbone:
    """The backbone, prepared for images of (height, width) in pixels unless that is None."""
    return create_backbone(
        workload.backbone,
        level=workload.level,
        levels=workload.levels,
        image_size=image_size,
        device=device,
        dtype=_before_llm(workload),
        seed=workload.seed,
        kernels=workload.kernel_backend,
        weights=workload.weights,
    )


def build_connector(workload: Workload, device: torch.device | str) -> nn.Module:
    """The connector from encoder tokens to visual tokens. Raises `UserError` for a grid it cannot merge."""
    backbone, llm = backbone_facts(workload.backbone, workload.level), llm_catalog.facts(workload.llm)
    return create_connector(
        workload.connector,
        backbone.embed_dim,
        llm.hidden_size,
        grid=backbone.grid(*workload.encoder_size),
        mlp_size=llm.config.get("intermediate_size"),
        device=device,
        dtype=_before_llm(workload),
        seed=workload.seed,
    )


def joining(connector: nn.Module, workload: Workload, device: torch.device | str) -> nn.Module:
    """The connector, with what joins the tokens of tiles and of frames if the workload has any."""
    if workload.tiling is not None:
        known = connector_facts(workload.connector)
        workload.tiling.check(known)
        grid = backbone_facts(workload.backbone, workload.level).grid(*workload.encoder_size)
        hidden_size = llm_catalog.facts(workload.llm).hidden_size
        connector = TiledConnector(
            connector,
            workload.tiling,
            (workload.height_px, workload.width_px),
            known.visual_grid(grid),
            torch.zeros(hidden_size, device=device, dtype=_before_llm(workload)),
        )
    return connector if workload.frames == 1 else VideoConnector(connector, workload.frames)


def build_llm(workload: Workload, device: torch.device | str) -> PreTrainedModel:
    """The language model, quantized unless a checkpoint is to be loaded first."""
    return create_llm(
        workload.llm,
        device=device,
        dtype=torch_dtype(workload.dtype),
        seed=workload.seed,
        precision="as-dtype" if workload.study_checkpoint else workload.llm_precision,
    )


def torch_dtype(name: Dtype) -> torch.dtype:
    """torch's dtype of this name."""
    found: torch.dtype = getattr(torch, name)
    return found


def _before_llm(workload: Workload) -> torch.dtype:
    """The dtype of weights and images before the LLM."""
    return torch.float32 if workload.autocast else torch_dtype(workload.dtype)


def _weight_bytes(module: nn.Module) -> int:
    stored = [part for own in (*module.parameters(), *module.buffers()) for part in stored_tensors(own)]
    return sum(tensor.nbytes for tensor in stored)
