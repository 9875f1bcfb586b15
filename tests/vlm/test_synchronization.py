"""No stage reads a value back from the device: on a GPU that would make the host wait in its middle."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlmprof.backbones import create_backbone, facts, names
from vlmprof.vlm.decoding import decode, prefill_cached
from vlmprof.vlm.llm import masks_traced_prefill
from vlmprof.vlm.model import VLM, create_vlm
from vlmprof.vlm.workload import Workload

READS_BACK = {"_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select", "_unique2"}

SMALLEST = {facts(name).family: name for name in reversed(names())}


class ReadBack(TorchDispatchMode):
    """Names what is read back while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in READS_BACK:
            self.operators.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


HOLDS_TO = (5, 24)
"""The newest transformers whose encoders were read; 5.24 itself began to look at what 5.23 did not."""


def allow_newer_transformers(name: str, request: pytest.FixtureRequest) -> None:
    """Let the test fail where the encoder is that of a transformers that came later."""
    major, minor = (int(part) for part in version("transformers").split(".")[:2])
    if (major, minor) <= HOLDS_TO:
        return
    if any(type(m).__module__.startswith("transformers.") for m in _built(name).modules()):
        reason = f"holds for transformers 5.10 to {HOLDS_TO[0]}.{HOLDS_TO[1]}"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))


def _built(name: str) -> torch.nn.Module:
    return create_backbone(name, levels="all", image_size=padded_size(name), device="meta")


def padded_size(name: str) -> tuple[int, int]:
    """A small odd size that the encoder takes; skips the test where it is not installed."""
    known = facts(name)
    if known.extra and importlib.util.find_spec(known.extra) is None:
        pytest.skip(f"the optional extra `{known.extra}` is not installed")
    return known.padded(45, 71)


@pytest.mark.parametrize("name", SMALLEST.values())
@torch.inference_mode()
def test_encoders_do_not_wait(name: str, request: pytest.FixtureRequest) -> None:
    size = padded_size(name)
    allow_newer_transformers(name, request)
    # the `torch` scan looks at its values, on a CPU alone
    encoder = create_backbone(name, levels="all", image_size=size, kernels="reference")
    images = torch.zeros(1, 3, *size)
    encoder(images)
    with ReadBack() as read:
        encoder(images)
    assert read.operators == []


class FromHost(TorchDispatchMode):
    """Names the operators that were given a tensor of the host beside one of the device `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors if t.ndim}) > 1:
            self.operators.append(func.overloadpacket.__name__)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST.values())
@torch.inference_mode()
def test_encoders_take_nothing_from_the_host_but_images(name: str, request: pytest.FixtureRequest) -> None:
    size = padded_size(name)
    allow_newer_transformers(name, request)
    encoder = _built(name)
    images = torch.empty(1, 3, *size, device="meta")
    encoder(images)
    with FromHost() as took:
        encoder(images)
    # ViTDet's published code makes the indices of its relative positions on the host, in every block
    assert set(took.operators) == ({"index"} if name == "vitdet-b" else set())


SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "head_dim": 16, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def small_vlm(kind: str, folder: Path) -> VLM:
    path = folder / f"{kind}.json"
    path.write_text(json.dumps({"model_type": kind, **SIZES}))
    return create_vlm(Workload("vit-t", str(path), 32, 48, dtype="float32", prompt_tokens=3))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "phi3", "mistral", "gemma3_text", "olmo2"])
@torch.inference_mode()
def test_language_models_do_not_wait(kind: str, tmp_path: Path) -> None:
    vlm = small_vlm(kind, tmp_path)
    embeddings = torch.randn(2, 6, 64)
    with ReadBack() as read:
        vlm.prefill(vlm.project(torch.randn(2, 6, facts("vit-t").embed_dim)))
        decode(vlm, prefill_cached(vlm, embeddings), 2)
    assert read.operators == []


@pytest.mark.slow
@torch.no_grad()
def test_compiled_prefill_attends_without_a_mask(tmp_path: Path) -> None:
    vlm = small_vlm("llama", tmp_path)
    embeddings = torch.randn(1, 6, 64)
    attended: list[Any] = []

    def watched(graph: torch.fx.GraphModule, _: Any) -> Any:
        calls = [node.kwargs for node in graph.graph.nodes if "scaled_dot_product" in str(node.target)]
        attended.extend((call.get("attn_mask"), call.get("is_causal")) for call in calls)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(vlm.prefill, dynamic=False, backend=watched)
    torch.testing.assert_close(compiled(embeddings), vlm.prefill(embeddings))
    unmasked = [(None, True)] * 2
    assert (attended == unmasked) is not masks_traced_prefill()
