"""FLOPs, bytes and special functions of each operation that torch dispatches, from its shapes alone.

What has a formula of its own is registered under its operator; everything else is elementwise: one FLOP
per element of the larger side. Operations that only view or allocate cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmprof.cost.costs import Kind, OpCost

Formula = Callable[..., OpCost]
aten = torch.ops.aten

FORMULAS: dict[Any, Formula] = {}
"""By operator packet: called with the output, then the operator's own arguments."""

SPECIAL_FUNCTIONS = {
    "exp": 1, "exp2": 1, "log": 1, "log2": 1, "expm1": 1, "log1p": 2, "sin": 1, "cos": 1, "tanh": 1, "erf": 1,
    "sqrt": 1, "rsqrt": 1, "reciprocal": 1, "sigmoid": 2, "silu": 2, "gelu": 1, "softplus": 2, "mish": 3,
    "_softmax": 1, "_safe_softmax": 1, "hardswish": 0, "pow": 0,
}  # fmt: skip
"""Per element of the output: `silu` needs an exp and a reciprocal, `softplus` an exp and a log."""

FLOPS_PER_ELEMENT = {
    "native_layer_norm": 7, "native_group_norm": 7, "_fused_rms_norm": 4, "native_batch_norm": 2,
    "_native_batch_norm_legit_no_training": 2, "_softmax": 4, "_safe_softmax": 4, "silu": 4, "gelu": 4,
    "upsample_bilinear2d": 8, "_upsample_bicubic2d_aa": 64, "upsample_bicubic2d": 64,
}  # fmt: skip
"""Where it is not one: norms take mean, variance, scale and shift; a special function counts as one."""

COPIES = frozenset(
    (
        *("clone", "copy_", "_to_copy", "contiguous", "cat", "stack", "roll", "flip", "repeat", "where"),
        *(
            "index",
            "index_select",
            "gather",
            "embedding",
            "masked_fill",
            "constant_pad_nd",
            "im2col",
            "col2im",
        ),
        *("reflection_pad2d", "pixel_shuffle", "pixel_unshuffle", "slice_scatter", "select_scatter"),
        *("fill_", "zero_", "zeros", "ones", "full", "zeros_like", "ones_like", "full_like"),
        *("new_zeros", "new_ones", "new_full", "arange", "scalar_tensor", "lift_fresh_copy"),
    )
)
"""Operations that move or make values without computing any."""

GATHERS = frozenset(("embedding", "index", "index_select", "gather"))
"""Operations that read as much of their first input as they write, not all of it."""

ALLOCATIONS = frozenset(
    ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense")
)


def formula(*packets: Any) -> Callable[[Formula], Formula]:
    """Register the formula of one or more operators."""

    def register(function: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(packets, function))
        return function

    return register


def op_cost(func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> OpCost | None:
    """The cost of one dispatched operation, or None for one that launches nothing on the device."""
    packet = func.overloadpacket
    if packet in FORMULAS:
        return FORMULAS[packet](output, *args, **kwargs)
    name = packet.__name__
    outputs, inputs = tensors_in(output), tensors_in((args, kwargs))
    if name in ALLOCATIONS or not outputs or _only_views(func, inputs, outputs):
        return None
    base = name if name in SPECIAL_FUNCTIONS or name in COPIES else name.rstrip("_")
    elements = max(tensor.numel() for tensor in (*outputs, *inputs))
    copies = base in COPIES
    read = touched_bytes(inputs)
    if base in GATHERS:
        read = touched_bytes(inputs[1:]) + touched_bytes(outputs)
    elif base == "copy_":
        read = touched_bytes(inputs[1:])
    return OpCost(
        Kind.COPY if copies else Kind.ELEMENTWISE,
        dtype_name(*inputs, *outputs),
        flops=0 if copies else elements * FLOPS_PER_ELEMENT.get(base, 1),
        moved_bytes=read + touched_bytes(outputs),
        special_functions=outputs[0].numel() * SPECIAL_FUNCTIONS.get(base, 0),
    )


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in a nest of lists, tuples and dicts, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in tensors_in(value)]


def touched_bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of these tensors, each once; an expanded one has no more than its storage."""
    sizes = {id(t): min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors}
    return sum(sizes.values())


def dtype_name(*tensors: Tensor) -> str:
    """The dtype of the first tensor that has a floating one, else of the first."""
    floating = [t.dtype for t in tensors if t.is_floating_point()]
    dtype = floating[0] if floating else tensors[0].dtype
    return str(dtype).removeprefix("torch.")


def _only_views(func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    if func.is_view:
        return True
    if func._schema.is_mutable:
        return False
    given = {tensor.untyped_storage()._cdata for tensor in inputs}
    return all(tensor.untyped_storage()._cdata in given for tensor in outputs)


def _product(kind: Kind, flops: int, output: Tensor, *inputs: Any) -> OpCost:
    given = tensors_in(inputs)
    return OpCost(
        kind, dtype_name(*given), flops=flops, moved_bytes=touched_bytes(given) + touched_bytes([output])
    )


@formula(aten.mm)
def _mm(output: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return _product(Kind.MATMUL, 2 * output.numel() * a.shape[1], output, a, b)


@formula(aten.addmm)
def _addmm(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return _product(Kind.MATMUL, 2 * output.numel() * a.shape[1], output, bias, a, b)


@formula(aten.bmm)
def _bmm(output: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return _product(Kind.MATMUL, 2 * output.numel() * a.shape[2], output, a, b)


@formula(aten.baddbmm)
def _baddbmm(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> OpCost:
    return _product(Kind.MATMUL, 2 * output.numel() * a.shape[2], output, bias, a, b)


@formula(aten.convolution)
def _convolution(
    output: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> OpCost:  # fmt: skip
    # each position of the larger grid's partner meets every tap: weight is (out, in/groups, *taps),
    # for a transposed convolution (in, out/groups, *taps)
    positions = (x if transposed else output).shape[2:].numel() * x.shape[0]
    return _product(Kind.CONVOLUTION, 2 * positions * weight.numel(), output, x, weight, bias)


@formula(aten.scaled_dot_product_attention)
def _attention(
    output: Tensor, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> OpCost:  # fmt: skip
    """As one kernel: 2·N²·d for the scores and 2·N²·d for the values, and no N² in memory.

    A causal kernel skips what lies above the diagonal; torch's FLOP counter counts it all the same.
    """
    heads = math.prod(q.shape[:-2])
    queries, keys = q.shape[-2], k.shape[-2]
    per_score = 2 * (q.shape[-1] + v.shape[-1])
    above = min(queries, keys) * (min(queries, keys) - 1) // 2 if is_causal else 0
    given = tensors_in((q, k, v, attn_mask))
    return OpCost(
        Kind.ATTENTION,
        dtype_name(q),
        flops=heads * queries * keys * per_score,
        skipped_flops=heads * above * per_score,
        moved_bytes=touched_bytes(given) + touched_bytes([output]),
        special_functions=heads * (queries * keys - above),
    )


def attention_workspace_bytes(q: Tensor) -> int:
    """The log-sum-exp of every query, float32, that the kernels write beside the output."""
    return 4 * math.prod(q.shape[:-1])
