"""Quantization of an LLM's linear layers by torchao, one layer after another.

A layer is built without data, filled and quantized before the next, so that a model never needs the memory of
its unquantized weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from vlmprof.errors import UserError
from vlmprof.settings import LLMPrecision
from vlmprof.vlm.precision import GROUP_SIZE, check_installed, fits

Weights = Callable[[str, nn.Linear], Tensor]
"""Returns the unquantized weight of a layer by its name."""

MULTIPLIED_ELSEWHERE = "dt_proj"
"""Of Mamba and its hybrids: transformers uses the weight of this layer without calling the layer."""


def quantized_layers(model: PreTrainedModel, precision: LLMPrecision) -> dict[str, nn.Linear]:
    """Return the linear layers that a precision quantizes, by name.

    Left out are the output layer, layers of sizes that torchao's kernels do not take, and layers whose weight
    is multiplied elsewhere. Raises `UserError` if none is left.
    """
    output = model.get_output_embeddings()
    layers = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear)
        and type(part).forward is nn.Linear.forward
        and part is not output
        and not name.endswith(MULTIPLIED_ELSEWHERE)
        and fits(precision, part.out_features, part.in_features)
    }
    if not layers:
        kind = model.config.model_type
        raise UserError(f"llm_precision {precision}: {kind} has no linear layers that torchao quantizes")
    return layers


@contextmanager
def linears_without_data() -> Iterator[None]:
    """Build linear layers on the device in this context, except their weights, which are built on `meta`."""

    def without_data(module: nn.Module, name: str, parameter: Any) -> Any:
        if isinstance(module, nn.Linear) and name == "weight" and parameter is not None:
            return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        return None

    handle = register_module_parameter_registration_hook(without_data)
    try:
        yield
    finally:
        handle.remove()


def quantize(model: PreTrainedModel, precision: LLMPrecision, weights: Weights | None = None) -> None:
    """Quantize the linear layers of a model in place: its own weights or, if it was built with
    `linears_without_data`, those that `weights` makes.

    Raises `UserError` if torchao is missing, or the model has no such layers.
    """
    layers = quantized_layers(model, precision)
    if weights is not None:
        model.tie_weights()
        for name, part in model.named_modules():
            if isinstance(part, nn.Linear) and part.weight.is_meta and name not in layers:
                part.weight = nn.Parameter(weights(name, part), requires_grad=False)
    for name, layer in layers.items():
        if weights is not None:
            layer.weight = nn.Parameter(weights(name, layer), requires_grad=False)
        quantize_layer(layer, precision)
        if not is_traceable_wrapper_subclass(layer.weight):
            raise RuntimeError(f"torchao did not quantize {name} of shape {tuple(layer.weight.shape)}")


def quantize_layer(layer: nn.Linear, precision: LLMPrecision) -> None:
    """Quantize one linear layer in place. Raises `UserError` if torchao is missing."""
    quantize_, config = _torchao(precision, layer.weight.device.type)
    quantize_(layer, config)


def stored_tensors(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that hold the data of `tensor`: of a quantized one, integers, scales and zeros."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [part for name in names for part in stored_tensors(getattr(tensor, name))]


def quantization_run(
    model: PreTrainedModel | None, precision: LLMPrecision, mode: str
) -> tuple[dict[str, str], list[str]]:
    """Return what quantized the weights of a model, as a row's `backends`, and the row's warnings."""
    if model is None or precision == "as-dtype":
        return {}, []
    output = model.get_output_embeddings()
    tables = {id(p.weight) for p in model.modules() if isinstance(p, nn.Embedding) or p is output}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
    quantized = [p for p in matrices if is_traceable_wrapper_subclass(p)]
    share = sum(p.numel() for p in quantized) / sum(p.numel() for p in matrices)
    dtype = str(model.dtype).removeprefix("torch.")
    found = []
    if share < 1:
        found.append(
            f"{precision} quantizes {share:.1%} of the LLM's weights, not counting embeddings and output "
            f"layer; the rest keeps {dtype}"
        )
    if precision == "int8-weight":
        found.append(
            "int8-weight saves memory rather than time: torchao converts each weight to "
            f"{dtype} before its product"
        )
    elif precision == "int8-dynamic" and model.device.type == "cuda" and mode != "compile":
        found.append(
            "int8-dynamic: unless it is compiled, torchao's int8 product waits for the GPU in every layer, "
            "and multiplies up to 16 tokens in float32"
        )
    elif precision == "int4-weight" and model.device.type == "cpu" and dtype == "float32":
        found.append(
            "int4-weight: on a CPU, torch multiplies float32 by int4 without vector instructions, many times "
            "slower than float32 by float32; use bfloat16"
        )
    formats = ", ".join(sorted({type(p).__name__ for p in quantized}))
    return {"llm_linear": f"{formats} of torchao {metadata.version('torchao')}"}, found


@cache
def _torchao(precision: LLMPrecision, device: str) -> tuple[Callable[[nn.Module, Any], None], Any]:
    """Return torchao's `quantize_` and the configuration of a precision on a type of device."""
    check_installed((precision,))
    import torchao.quantization as ao

    own: dict[str, Any] = {"set_inductor_config": False}  # the encoder is compiled in the same process
    if precision == "int8-weight":
        return ao.quantize_, ao.Int8WeightOnlyConfig(**own)
    if precision == "int8-dynamic":
        return ao.quantize_, ao.Int8DynamicActivationInt8WeightConfig(**own)
    if precision == "fp8":
        return ao.quantize_, ao.Float8DynamicActivationFloat8WeightConfig(**own)
    own["group_size"] = GROUP_SIZE
    if device == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return ao.quantize_, PrototypeInt4WeightOnlyConfig(**own)
    # the packing of torch's own kernel; torchao's default needs another package
    return ao.quantize_, ao.Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", **own)
