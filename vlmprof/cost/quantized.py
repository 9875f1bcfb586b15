"""Stand-ins for quantized linear layers: the tensors and operations of torchao's, for counting without it.

torchao's tensors for a GPU cannot be made on other machines. The operations are those of eager mode, in
torchao's order (0.18, `torchao/quantization/quantize_/workflows`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from transformers import PreTrainedModel

from vlmprof.cost.costs import Kind, OpCost
from vlmprof.cost.dispatch_counter import CostCounter
from vlmprof.settings import LLMPrecision
from vlmprof.vlm.precision import GROUP_SIZE
from vlmprof.vlm.quantization import quantized_layers

_TILE_COLUMNS = 1024
"""The kernel for a GPU takes weights of int4 whose columns are padded to a multiple of this."""

_FEWEST_ROWS = 17
"""The int8 product on a GPU needs as many; with fewer, torchao multiplies in float32."""


class QuantizedLinear(nn.Module, ABC):
    """A linear layer as torchao quantizes it, on `meta`."""

    precision: LLMPrecision

    def __init__(self, layer: nn.Linear, on_cpu: bool) -> None:
        super().__init__()
        self.on_cpu = on_cpu
        self.out_features, self.in_features = layer.out_features, layer.in_features
        self.dtype = layer.weight.dtype
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        """A tensor of the weight's shape and nominal dtype, for models that look at it."""
        return torch.empty(self.out_features, self.in_features, device="meta", dtype=self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (…, in_features)."""
        counter = _get_current_dispatch_mode()
        if self.on_cpu and isinstance(counter, CostCounter):
            counter.add(OpCost(Kind.QUANTIZED_CALL, self.precision, kernels=0))
        y = self._product(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype)

    @abstractmethod
    def _product(self, x: Tensor) -> Tensor:
        """Multiply (rows, in_features) by the weight, as torchao does."""


class _Int8Weight(QuantizedLinear):
    """A scale and a zero for each row. The weight is converted before each product."""

    precision: LLMPrecision = "int8-weight"

    qdata: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, on_cpu: bool) -> None:
        super().__init__(layer, on_cpu)
        rows = self.out_features
        self.register_buffer("qdata", _empty(torch.int8, rows, self.in_features))
        self.register_buffer("scale", _empty(torch.float32, rows, 1))
        self.register_buffer("zero_point", _empty(torch.int8, rows, 1))

    def _product(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.qdata.t().to(x.dtype)) * self.scale.to(x.dtype).flatten()


class _Int8Dynamic(_Int8Weight):
    """The input is quantized too, with a scale for each token. Counted without the correction for CPUs that
    multiply unsigned by signed integers."""

    precision: LLMPrecision = "int8-dynamic"

    def _product(self, x: Tensor) -> Tensor:
        low, high = torch.amin(x, -1, keepdim=True), torch.amax(x, -1, keepdim=True)
        low, high = torch.min(low, torch.zeros_like(low)), torch.max(high, torch.zeros_like(high))
        scale = torch.max(-low, high) / 127.5
        zero = torch.full_like(scale, 0).to(torch.int8)
        scale = torch.clamp(scale, min=1e-7).to(torch.float32)
        q = torch.clamp(torch.round(x * (1.0 / scale)) + zero, -128, 127).to(torch.int8)
        if self.on_cpu:
            product = torch._int_mm(q, self.qdata.t()).to(torch.float32)
        elif len(x) >= _FEWEST_ROWS:
            product = torch._int_mm(q, self.qdata.t().contiguous())
        else:
            weight = self.qdata.t().contiguous().to(torch.float32)
            product = torch.mm(q.to(torch.float32), weight).to(torch.int32)
        return (product * scale).to(x.dtype) * self.scale.flatten()


class _Int4Weight(QuantizedLinear):
    """A scale and a zero for each group of a row, and a kernel that unpacks them as it multiplies."""

    precision: LLMPrecision = "int4-weight"

    qdata: Tensor
    scale_and_zero: Tensor

    def __init__(self, layer: nn.Linear, on_cpu: bool) -> None:
        super().__init__(layer, on_cpu)
        rows, columns = self.out_features, self.in_features
        if not on_cpu:
            columns = -(-columns // _TILE_COLUMNS) * _TILE_COLUMNS
        self.register_buffer("qdata", _empty(torch.uint8, rows, columns // 2))
        self.register_buffer("scale_and_zero", _empty(self.dtype, columns // GROUP_SIZE, rows, 2))

    def _product(self, x: Tensor) -> Tensor:
        # that for a GPU, `_weight_int4pack_mm`, does not run on `meta`
        kernel = torch.ops.aten._weight_int4pack_mm_for_cpu
        product: Tensor = kernel(x, self.qdata, GROUP_SIZE, self.scale_and_zero)
        return product


class _Float8(QuantizedLinear):
    """One scale for the weight and, at each call, one for the input."""

    precision: LLMPrecision = "fp8"

    qdata: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, on_cpu: bool) -> None:
        super().__init__(layer, on_cpu)
        self.register_buffer("qdata", _empty(torch.float8_e4m3fn, self.out_features, self.in_features))
        self.register_buffer("scale", _empty(torch.float32, 1, 1))

    def _product(self, x: Tensor) -> Tensor:
        scale = (x.abs().amax() / 448).to(torch.float32).reshape(1, 1)
        q = (x.to(torch.float32) / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        return torch._scaled_mm(q, self.qdata.t(), scale, self.scale, out_dtype=x.dtype)


def stand_in(model: PreTrainedModel, precision: LLMPrecision, on_cpu: bool) -> PreTrainedModel:
    """Replace the linear layers of a model on `meta` that a precision quantizes; returns the model.

    Raises `UserError` if it has no such layers.
    """
    for name, layer in quantized_layers(model, precision).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, STAND_INS[precision](layer, on_cpu))
    return model


STAND_INS: dict[LLMPrecision, type[QuantizedLinear]] = {
    kind.precision: kind for kind in (_Int8Weight, _Int8Dynamic, _Int4Weight, _Float8)
}


def _empty(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
