"""Quantized LLMs: numbers within what each format promises, bytes by hand, one layer at a time."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.helpers.tiny_llms import tiny_config
from vlmprof.backbones.random_weights import RandomValues
from vlmprof.cost.costs import Kind
from vlmprof.cost.count import count
from vlmprof.cost.dispatch_counter import count_module
from vlmprof.cost.quantized import STAND_INS
from vlmprof.cost.scans import Kernels
from vlmprof.errors import UserError
from vlmprof.settings import Axes, Dtype, LLMPrecision
from vlmprof.spec import build_spec
from vlmprof.vlm import precision as precisions
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.quantization import quantization_run, quantize, quantized_layers, stored_tensors
from vlmprof.vlm.workload import Workload

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install 'vlmprof[quant]'"
)
ON_CPU: tuple[LLMPrecision, ...] = ("int8-weight", "int8-dynamic", "int4-weight")
LINEARS = [(384, 384)] * 4 + [(1024, 384)] * 2 + [(384, 1024)]
"""(rows, columns) of the linear layers in each of llama-23m's six layers."""


def llm(precision: LLMPrecision = "as-dtype", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return create_llm("llama-23m", dtype=dtype, seed=3, precision=precision)


def linear(model: PreTrainedModel, name: str) -> nn.Linear:
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def half_steps(weight: Tensor, precision: LLMPrecision) -> Tensor:
    """Half the distance of two neighbouring values of each weight, by hand."""
    if precision != "int4-weight":
        return (weight.abs().amax(1, keepdim=True) / 127.5 / 2).expand_as(weight)
    groups = weight.unflatten(1, (-1, 128))
    steps = (groups.amax(2, keepdim=True) - groups.amin(2, keepdim=True)) / 15
    return (steps / 2).expand_as(groups).flatten(1)


@needs_torchao
@pytest.mark.parametrize("precision", ["int8-weight", "int4-weight"])
def test_weights_are_within_half_a_step(precision: LLMPrecision) -> None:
    plain, quantized = llm(), llm(precision)
    layers = quantized_layers(plain, precision)
    assert len(layers) == 6 * len(LINEARS)
    for name in [*layers][: len(LINEARS)]:
        weight = layers[name].weight.double()
        columns = torch.arange(0, weight.shape[1], 7)
        with torch.inference_mode():
            read = linear(quantized, name)(torch.eye(weight.shape[1])[columns]).T.double()
        error = (read - weight[:, columns]).abs()
        bound = half_steps(weight, precision)[:, columns]
        assert (error <= bound * (1 + 1e-3) + 1e-6).all(), name
        assert (error > bound / 2).any(), name  # it is quantized at all


@needs_torchao
@pytest.mark.parametrize("precision", ON_CPU)
def test_products_are_as_close_to_float64_as_the_format_promises(precision: LLMPrecision) -> None:
    torch.manual_seed(0)
    plain, quantized = llm(), llm(precision)
    name = "model.layers.2.mlp.down_proj"
    weight, x = linear(plain, name).weight.double(), torch.randn(7, 1024)
    with torch.inference_mode():
        y = linear(quantized, name)(x).double()
    exact, of_weights = x.double() @ weight.T, half_steps(weight, precision)
    bound = x.double().abs() @ of_weights.T
    if precision == "int8-dynamic":  # a step for each row of the input, whose error meets weights in error
        of_inputs = x.double().abs().amax(1, keepdim=True) / 127.5 / 2
        bound += of_inputs.expand_as(x) @ (weight.abs() + of_weights).T
    assert ((y - exact).abs() <= bound + 1e-4).all()
    assert (y - exact).abs().max() > 1e-4  # of float32


@needs_torchao
def test_tables_and_the_output_layer_keep_their_values() -> None:
    plain, quantized = llm(), llm("int8-weight")
    assert quantized.get_output_embeddings().weight is quantized.get_input_embeddings().weight
    tables = [model.get_parameter("model.embed_tokens.weight") for model in (plain, quantized)]
    assert torch.equal(*tables)
    assert not any(parameter.is_meta for parameter in quantized.parameters())


def by_hand(precision: LLMPrecision, item_bytes: int, on_cpu: bool) -> int:
    """Bytes of the linear layers of llama-23m."""
    if precision == "int8-weight" or precision == "int8-dynamic":
        each = [rows * columns + rows * (4 + 1) for rows, columns in LINEARS]  # float32 scale, int8 zero
    elif precision == "fp8":
        each = [rows * columns + 4 for rows, columns in LINEARS]
    else:
        padded = [(rows, columns if on_cpu else -(-columns // 1024) * 1024) for rows, columns in LINEARS]
        each = [rows * columns // 2 + rows * (columns // 128) * 2 * item_bytes for rows, columns in padded]
    return 6 * sum(each)


@pytest.mark.parametrize(("precision", "dtype", "on_cpu"), [
    ("int8-weight", "float32", True), ("int8-dynamic", "bfloat16", True), ("int4-weight", "bfloat16", True),
    ("int4-weight", "float32", True), ("int4-weight", "bfloat16", False), ("fp8", "bfloat16", False),
])  # fmt: skip
def test_counted_bytes_and_flops(precision: LLMPrecision, dtype: Dtype, on_cpu: bool) -> None:
    workload = Workload(
        "vit-t",
        "llama-23m",
        32,
        32,
        dtype=dtype,
        prompt_tokens=40,
        stages=("vision", "connector", "prefill", "decode"),
    )
    kernels: Kernels = "torch" if on_cpu else "triton"
    plain = count(workload, kernels)
    quantized = count(replace(workload, llm_precision=precision), kernels)
    item_bytes = 4 if dtype == "float32" else 2
    linears = 6 * sum(rows * columns for rows, columns in LINEARS) * item_bytes
    for stage in ("prefill", "decode"):
        before, after = plain.stages[stage], quantized.stages[stage]
        assert after.weight_bytes == before.weight_bytes - linears + by_hand(precision, item_bytes, on_cpu)
        assert after.matrix_flops == before.matrix_flops
        calls = {op.dtype: n for op, n in after.ops.items() if op.kind is Kind.QUANTIZED_CALL}
        assert calls == ({precision: 6 * len(LINEARS)} if on_cpu else {})
        assert after.assumptions == before.assumptions == ()
    assert plain.stages["vision"] == quantized.stages["vision"]


@needs_torchao
@pytest.mark.parametrize("precision", ON_CPU)
def test_a_vlm_holds_what_is_counted(precision: LLMPrecision) -> None:
    workload = Workload("vit-t", "llama-23m", 32, 32, dtype="float32", llm_precision=precision)
    vlm = create_vlm(workload)
    assert vlm.weight_bytes()["prefill"] == count(workload, "torch").stages["prefill"].weight_bytes
    stored = [part for own in vlm.language.parameters() for part in stored_tensors(own)]
    assert {part.dtype for part in stored} - {torch.float32} <= {torch.int8, torch.uint8}


@needs_torchao
@pytest.mark.parametrize("precision", ["int8-weight", "int8-dynamic"])
@pytest.mark.parametrize("bias", [True, False])
def test_stand_ins_count_the_operations_of_torchao(precision: LLMPrecision, bias: bool) -> None:
    """Of up to 16 rows, which torchao multiplies on `meta` as on a GPU."""
    from vlmprof.vlm.quantization import _torchao

    with torch.device("meta"):
        layer, x = (
            nn.Linear(256, 512, bias=bias, dtype=torch.bfloat16),
            torch.empty(2, 8, 256, dtype=torch.bfloat16),
        )
    ours = count_module(STAND_INS[precision](layer, on_cpu=False), x)
    quantize_, config = _torchao(precision, "cuda")
    quantize_(layer, config)
    theirs = count_module(nn.Identity(), x, call=lambda given: layer(given))
    assert ours.ops == theirs.ops
    assert ours.weight_bytes == sum(part.nbytes for own in layer.parameters() for part in stored_tensors(own))


@needs_torchao
def test_layers_are_made_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unquantized weight of an earlier layer is in memory when the next is made."""
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    fill = RandomValues.fill

    def watched(self: RandomValues, name: str, parameter: Tensor) -> Tensor:
        if name.endswith("proj.weight"):
            alive.append(sum(ref() is not None for ref in made))
            made.append(weakref.ref(parameter))
        return fill(self, name, parameter)

    monkeypatch.setattr(RandomValues, "fill", watched)
    llm("int8-weight")
    assert alive == [0] * 6 * len(LINEARS)


@needs_torchao
def test_a_model_with_loaded_weights_is_quantized_too() -> None:
    made, loaded = llm("int8-weight"), llm()
    quantize(loaded, "int8-weight")
    for a, b in zip(made.parameters(), loaded.parameters(), strict=True):
        assert all(map(torch.equal, stored_tensors(a), stored_tensors(b)))


def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="gpt2 has no linear layers that torchao quantizes"):
        create_llm(str(tmp_path), precision="int8-weight")
    with pytest.raises(UserError, match="gpt2 has no linear layers"):
        count(Workload("vit-t", str(tmp_path), 32, 32, llm_precision="fp8"))


@needs_torchao
@pytest.mark.parametrize(
    ("model_type", "share"),
    [("mixtral", "7.7%"), ("mamba", "90.5%"), ("opt", None), ("falcon", "falcon has no linear layers")],
)
def test_layers_that_keep_their_dtype_are_told(model_type: str, share: str | None, tmp_path: Path) -> None:
    """Experts are no linear layers, Mamba reads the weight of one, and Falcon's have a forward of their own.
    OPT's table of positions is an embedding."""
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(model_type)))
    if model_type == "falcon":
        with pytest.raises(UserError, match=str(share)):
            create_llm(str(tmp_path), precision="int8-weight")
        return
    model = create_llm(str(tmp_path), precision="int8-weight")
    with torch.inference_mode():
        table = model.get_parameter(next(n for n, _ in model.named_parameters() if "embed" in n))
        logits = model(inputs_embeds=torch.randn(1, 4, table.shape[1]), use_cache=False).logits
    assert logits.isfinite().all()
    backends, warnings = quantization_run(model, "int8-weight", "eager")
    assert backends["llm_linear"].startswith("Int8Tensor of torchao ")
    assert [f"quantizes {share}" in words for words in warnings] == ([True, False] if share else [False])


@pytest.mark.parametrize(
    ("precision", "device", "other", "capability", "words"),
    [
        ("fp8", "cpu", {}, None, "8.9 or higher; on cpu, use int8-weight, int8-dynamic or int4-weight$"),
        ("fp8", "cuda:1", {}, (8, 0), "needs compute capability 8.9 or higher, but this GPU has 8.0"),
        ("fp8", "cuda", {}, (8, 9), None),
        ("fp8", "cuda", {}, None, None),
        ("fp8", "auto", {}, None, None),
        ("int4-weight", "cuda", {"dtype": "float16"}, (9, 0), "needs dtype bfloat16 on a GPU, not float16"),
        ("int4-weight", "cuda", {}, (7, 5), "compute capability 8.0 or higher, but this GPU has 7.5"),
        ("int4-weight", "cpu", {"dtype": "float32"}, None, None),
        ("int8-dynamic", "cuda", {"mode": "graphs"}, (9, 0), "captured in a CUDA graph.*use mode compile"),
        ("int8-dynamic", "cuda", {"mode": "graphs", "prefill_chunk": 64}, (9, 0), None),
        ("int8-dynamic", "mps", {}, None, "needs a CPU or a CUDA device; on mps, use int8-weight"),
        ("int8-weight", "mps", {}, None, None),
    ],
)  # fmt: skip
def test_what_a_device_lacks_is_refused_in_one_line(
    precision: LLMPrecision,
    device: str,
    other: dict[str, object],
    capability: tuple[int, int] | None,
    words: str | None,
) -> None:
    grid = {"axes": {"backbone": "vit-t", "resolution": 32, "llm": "llama-23m"}, "fixed": {"device": device}}
    settings = build_spec(grid, {}, "mine").settings
    axes = Axes("vit-t", "32", "llama-23m", llm_precision=precision, **other)  # type: ignore[arg-type]
    said = precisions.refusal(axes, settings, capability)
    if words is None:
        assert said is None
    else:
        with pytest.raises(UserError, match=words):
            raise UserError(said or "")
        assert "\n" not in (said or "")
    without_llm = build_spec(grid, {"stages": ["preprocess", "vision"]}, "mine").settings
    assert precisions.refusal(axes, without_llm, capability) is None
